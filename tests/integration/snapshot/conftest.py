"""Keepers of a test live in a folder of its own, and end with it."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pccl_py import PcclError
from pccl_py.snapshot import ask


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="pk-")  # short: a socket's path is
    monkeypatch.setenv("XDG_RUNTIME_DIR", path)
    yield path
    for log in Path(path).glob("pccl/*.log"):
        print(log.name, log.read_text(), sep="\n")  # shown where the test failed
    for one in ask.sockets():
        with suppress(PcclError, OSError):
            ask.free(one, force=True)
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
