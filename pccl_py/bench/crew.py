"""Processes of a measurement: each serves one object, asked over pipes by one line of JSON per call.

They are forked from this process, so a new one costs milliseconds and imports nothing again. They die with
this process, and at the latest when the `with` block of their crew ends.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, NoReturn, Self

from ..errors import PcclError

_PR_SET_PDEATHSIG = 1
ANSWER_S = 120.0


class WorkerFailed(PcclError):
    """A process of a measurement raised, died or did not answer in time; the message says which."""


def die_with_parent(parent: int) -> None:
    """SIGKILL for this process as soon as `parent`, which forked it, is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


class Worker:
    """One process. `call(method, ...)` runs it there; `send` and `receive` are its halves."""

    def __init__(self, name: str, pid: int, read_fd: int, write_fd: int) -> None:
        self.name = name
        self.pid = pid
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._buffer = b""
        self._asked = ""

    def call(self, method: str, *, within: float = ANSWER_S, **arguments: Any) -> Any:
        self.send(method, **arguments)
        return self.receive(within)

    def send(self, method: str, **arguments: Any) -> None:
        self._asked = method
        with suppress(BrokenPipeError):  # a dead one is noticed by receive()
            os.write(self._write_fd, json.dumps([method, arguments]).encode() + b"\n")

    def receive(self, within: float = ANSWER_S) -> Any:
        """What the last call returned. Raises WorkerFailed."""
        until = time.monotonic() + within
        while b"\n" not in self._buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._read_fd], [], [], left)[0]:
                raise WorkerFailed(f"{self.name} has not answered {self._asked}() for {within:g} s")
            part = os.read(self._read_fd, 1 << 16)
            if not part:
                raise WorkerFailed(f"{self.name} died in {self._asked}()")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        error, value = json.loads(line)
        if error:
            raise WorkerFailed(f"{self.name}, {self._asked}(): {error}")
        return value

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self) -> None:
        """Kills and reaps it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        for fd in (self._read_fd, self._write_fd):
            os.close(fd)


class Crew:
    """`with Crew() as crew: worker = crew.start("peer 1", factory, ...)`: it serves `factory(...)`."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []

    def start(self, name: str, factory: Callable[..., object], *arguments: Any) -> Worker:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        asks, tells = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            _live(parent, asks[0], tells[1], factory, arguments)
        os.close(asks[0])
        os.close(tells[1])
        worker = Worker(name, pid, tells[0], asks[1])
        self._workers.append(worker)
        return worker

    def end(self, worker: Worker) -> None:
        self._workers.remove(worker)
        worker.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._workers:
            self._workers.pop().end()


def each(workers: Sequence[Worker], method: str, *, within: float = ANSWER_S, **arguments: Any) -> list[Any]:
    """The same call on all of them at the same time; what they return, in their order."""
    for worker in workers:
        worker.send(method, **arguments)
    return [worker.receive(within) for worker in workers]


def _live(
    parent: int, asks: int, tells: int, factory: Callable[..., object], arguments: tuple[Any, ...]
) -> NoReturn:
    """The child's life. Nothing of the parent's is open in it but its standard error."""
    try:
        die_with_parent(parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then ends this process
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(asks, 0)
        os.dup2(2, 1)
        os.dup2(tells, 3)
        for fd in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                os.close(int(fd)) if int(fd) > 3 else None
        logging.getLogger("pccl_py").setLevel(logging.ERROR)  # lost peers are what is measured, not news
        _serve(factory, arguments)
    except BaseException:
        traceback.print_exc()
    os._exit(0)


def _serve(factory: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    served: object | None = None
    with (
        open(0, encoding="utf-8", closefd=False) as asks,
        open(3, "w", encoding="utf-8", closefd=False) as tells,
    ):
        for line in asks:
            method, given = json.loads(line)
            try:
                served = served if served is not None else factory(*arguments)
                answer = [None, getattr(served, method)(**given)]
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                text = f"{type(error).__name__}: {error} ({os.path.basename(place.filename)}:{place.lineno})"
                answer = [text, None]
            tells.write(json.dumps(answer) + "\n")
            tells.flush()
