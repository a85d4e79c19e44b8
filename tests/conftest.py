"""What every test has: a deadline, and fixtures that clean up after themselves.

A test that hangs has each thread's stack printed and ends the run: after two minutes, or what
`@pytest.mark.deadline(seconds)` says. The same limit holds for its set-up and its tear-down, each by itself.
However a run ends, what it has started ends with it.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests import leftovers, ports

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_S = 120.0

_stderr = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    text = f"deadline(seconds): end the run when a test takes longer (default {DEADLINE_S:g})"
    config.addinivalue_line("markers", text)
    leftovers.watch()
    # What a shell has begun with `&` ignores it, and so would all that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[_stderr] = os.dup(2)  # the terminal's: while a test runs, descriptor 2 is captured


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[_stderr])


def _within_deadline(item: pytest.Item) -> Iterator[None]:
    marker = item.get_closest_marker("deadline")
    seconds = float(marker.args[0]) if marker else DEADLINE_S
    faulthandler.dump_traceback_later(seconds, exit=True, file=item.config.stash[_stderr])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    return (yield from _within_deadline(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    return (yield from _within_deadline(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    return (yield from _within_deadline(item))


@pytest.fixture
def free_port() -> int:
    return ports.free_port()


Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """`spawn("-c", source)` or `spawn("-m", "pccl_py", "master")`: this interpreter in a process group of its
    own, started in the root, its output readable as text. Whatever of the group is left at the end is killed.
    """
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "cwd": ROOT} | options
        command = [sys.executable, "-u", *arguments]
        process = subprocess.Popen(command, text=True, start_new_session=True, **options)
        processes.append(process)
        return process

    yield start
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
