"""Keepers of a test live in a folder of its own, and end with it."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pccl_py import PcclError
from pccl_py.snapshot import ask


def free_keepers() -> None:
    """Returns when they are gone."""
    for one in ask.sockets():
        with suppress(PcclError, OSError):
            if ask.summary(one) is None:
                continue  # it was killed
            ask.free(one, force=True)
            until = time.monotonic() + 6
            while one.exists() and time.monotonic() < until:
                time.sleep(0.01)


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="pk-")  # short: a socket's path is
    monkeypatch.setenv("XDG_RUNTIME_DIR", path)
    yield path
    for log in Path(path).glob("pccl/*.log"):
        print(log.name, log.read_text(), sep="\n")  # shown where the test failed
    free_keepers()
    shutil.rmtree(path, ignore_errors=True)  # keepers that end remove what is theirs


@pytest.fixture
def kill_keeper() -> Iterator[object]:
    """`kill_keeper()`: the only one, with SIGKILL."""

    def kill() -> int:
        (path,) = ask.sockets()
        found = ask.summary(path)
        assert found is not None
        os.kill(found.pid, signal.SIGKILL)
        return found.pid

    yield kill
