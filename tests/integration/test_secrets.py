"""Secrets: shared, different, missing, or readable by everybody."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from pccl_py import AuthenticationError, Communicator, Master, UsageError

from .greetings import greeting_of
from .logged import logged
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


def test_a_secret_that_does_not_encrypt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps others out, and nobody is talked into it who asked for encryption."""
    one = secret_file(tmp_path, "one", b"0123456789abcdef")
    other = secret_file(tmp_path, "other", b"0123456789abcdeX")
    refused = {"config": IMPATIENT, "timeout": 10}
    with Master(secret_file=one, encrypt=False, config=QUICK) as master:

        def play(comm: Communicator, index: int) -> None:
            array = np.ones(300_000)
            comm.all_reduce(array)
            assert np.all(array == 2)

        together(master.address, 2, play, secret_file=one, encrypt=False, transport="tcp")
        with pytest.raises(AuthenticationError, match="different secrets"):
            Communicator(master.address, secret_file=other, encrypt=False, **refused)  # type: ignore[arg-type]
        with pytest.raises(AuthenticationError, match="this side encrypts, and the other side wants"):
            Communicator(master.address, secret_file=one, **refused)  # type: ignore[arg-type]
        monkeypatch.setenv("PCCL_ENCRYPT", "no")
        with Communicator(master.address, secret_file=one, timeout=10) as comm:
            assert comm.world_size == 1
        with Master(secret_file=one, encrypt=True) as sealed, pytest.raises(AuthenticationError) as caught:
            Communicator(sealed.address, secret_file=one, timeout=10)
        assert "was told not to: give the same encrypt= (PCCL_ENCRYPT)" in str(caught.value)


def test_a_peer_that_offers_plain_to_who_encrypts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = secret_file(tmp_path, "one", b"0123456789abcdef")
    with Master(secret_file=one) as master:
        connection, said = greeting_of(master.address)
        with connection:
            connection.sendall(said[:10] + bytes([1 | 4]) + bytes(5) + os.urandom(16) + bytes(32))
            with suppress(ConnectionResetError):
                assert connection.recv(100) == b""
        assert logged(caplog, "this side encrypts, and the other side wants to go on in plain")


def test_encryption_without_a_secret(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="needs a secret"):
        Communicator(master.address, encrypt=True)
    monkeypatch.setenv("PCCL_ENCRYPT", "yes")
    with pytest.raises(UsageError, match="needs a secret"):
        Communicator(master.address)
    with pytest.raises(UsageError, match="needs a secret"):
        Master()
    monkeypatch.setenv("PCCL_ENCRYPT", "perhaps")
    with pytest.raises(UsageError, match="'perhaps': it is yes, no or auto"):
        Communicator(master.address)


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
