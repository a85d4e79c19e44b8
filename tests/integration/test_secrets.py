"""Secrets: shared, different, missing, or readable by everybody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pccl_py import AuthenticationError, Communicator, Master, UsageError

from .peers import IMPATIENT, QUICK, together


def secret_file(folder: Path, name: str, text: bytes, mode: int = 0o600) -> Path:
    path = folder / name
    path.write_bytes(text)
    path.chmod(mode)
    return path


def test_a_shared_secret(tmp_path: Path) -> None:
    one = secret_file(tmp_path, "one", b"0123456789abcdef")
    same = secret_file(tmp_path, "same", b"0123456789abcdef\n")  # as an editor leaves it
    with Master(secret_file=one, config=QUICK) as master:

        def play(comm: Communicator, index: int) -> None:
            array = np.ones(300_000)
            comm.all_reduce(array)
            assert np.all(array == 2)

        together(master.address, 2, play, secret_file=same)


def test_secrets_that_differ(tmp_path: Path) -> None:
    one = secret_file(tmp_path, "one", b"0123456789abcdef")
    other = secret_file(tmp_path, "other", b"0123456789abcdeX")
    with Master(secret_file=one) as master:
        for options in ({"secret_file": other}, {}):
            with pytest.raises(AuthenticationError):
                Communicator(master.address, config=IMPATIENT, timeout=10, **options)  # type: ignore[arg-type]
    with Master() as master, pytest.raises(AuthenticationError):
        Communicator(master.address, secret_file=one, config=IMPATIENT, timeout=10)


def test_files_that_hold_no_secret(tmp_path: Path, master: Master) -> None:
    short = secret_file(tmp_path, "short", b"0123456789abcde\n")
    with pytest.raises(UsageError, match="holds 15 bytes of at least 16; make one"):
        Communicator(master.address, secret_file=short)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        Master(secret_file=tmp_path / "none")
    with pytest.raises(UsageError, match="contradict"):
        Communicator(master.address, secret_file=short, insecure=True)


def test_a_secret_that_everybody_may_read(tmp_path: Path) -> None:
    path = secret_file(tmp_path, "secret", b"0123456789abcdef", 0o644)
    with pytest.warns(UserWarning, match="may be read or written by everybody: chmod 600") as caught:
        Master(secret_file=path).stop()
    assert caught[0].filename == __file__


def test_another_host_needs_a_secret() -> None:
    with pytest.raises(UsageError, match="secret_file"):
        Communicator("192.0.2.1:48148", timeout=1)
    with pytest.raises(UsageError, match="secret_file"):
        Master("0.0.0.0:0")
