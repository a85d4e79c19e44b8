"""Processes that the orchestrator forks: they say records, leave a log and stacks, and die with it.

Forking is what makes a peer cheap to kill: numpy and the library are imported once. The orchestrator has
one thread and no communicator, so a child starts clean.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from .records import Reader, Record, Writer

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

SIGNAL_S = 0.7  # that a process may take to write its stacks
Main = Callable[[Writer, int], None]


@dataclass(eq=False)
class Child:
    """A process of ours. `status` is its exit status once it is gone, negative for a signal.
    `keep_workers`: what it has forked outlives it until end_workers()."""

    name: str
    pid: int
    reader: Reader
    log: Path
    stacks: Path
    started: float
    killed_at: float | None = None
    stopped: bool = False
    status: int | None = None
    keep_workers: bool = False

    @property
    def alive(self) -> bool:
        return self.status is None

    def log_tail(self, lines: int = 30) -> str:
        with suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def cpu_seconds(self) -> float:
        """CPU time of all its threads so far, in nanosecond steps."""
        total = 0
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            with suppress(OSError, IndexError):
                total += int((thread / "schedstat").read_text().split()[0])
        return total * 1e-9


class Fleet:
    """All processes of one run. Use as a context manager: none outlives it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[Child] = []
        self._selector = selectors.DefaultSelector()
        # Whoever reads the lifeline and sees its end knows that the orchestrator is gone.
        self._lifeline, self._lifeline_end = os.pipe()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.children:
            if child.alive:
                self.kill(child)
        for child in self.children:
            if child.alive:
                self._reap(child, os.waitpid(child.pid, 0)[1])
            self.end_workers(child)
        os.close(self._lifeline)
        os.close(self._lifeline_end)
        self._selector.close()

    def start(self, name: str, main: Main) -> Child:
        """Forks a process that runs main(writer, lifeline)."""
        log, stacks = self.folder / f"{name}.log", self.folder / f"{name}.stacks"
        read_end, write_end = os.pipe()
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        started = time.monotonic()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # a peer unblocks it once it handles it
        pid = os.fork()
        if pid == 0:
            _child(parent, main, write_end, self._lifeline, log, stacks)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        os.close(write_end)
        child = Child(name, pid, Reader(read_end), log, stacks, started)
        self.children.append(child)
        self._selector.register(read_end, selectors.EVENT_READ, child)
        return child

    def poll(self, seconds: float) -> list[tuple[Child, Record]]:
        """Waits at most so long for news: records in the order of each process, then {"what": "exit"}."""
        news: list[tuple[Child, Record]] = []
        for key, _ in self._selector.select(max(0.0, seconds)):
            news += [(key.data, record) for record in key.data.reader.read()]
        for child in [c for c in self.children if c.alive]:
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid == 0:
                continue
            news += [(child, record) for record in child.reader.read()]
            self._reap(child, status)
            news.append((child, {"what": "exit", "t": time.monotonic()}))
        return news

    def _reap(self, child: Child, status: int) -> None:
        child.status = os.waitstatus_to_exitcode(status)
        self._selector.unregister(child.reader.descriptor)
        os.close(child.reader.descriptor)
        if not child.keep_workers:
            self.end_workers(child)

    def end_workers(self, child: Child) -> None:
        """Kills what a process that is gone had forked and left behind."""
        if not child.alive:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

    def kill(self, child: Child) -> float:
        """SIGKILL, to it alone and not to what it forked. Returns the time just before."""
        now = time.monotonic()
        os.kill(child.pid, signal.SIGKILL)
        child.killed_at = now
        return now

    def stop(self, child: Child) -> float:
        now = time.monotonic()
        os.kill(child.pid, signal.SIGSTOP)
        child.stopped = True
        return now

    def resume(self, child: Child) -> None:
        os.kill(child.pid, signal.SIGCONT)
        child.stopped = False

    def ask_to_leave(self, child: Child) -> None:
        os.kill(child.pid, signal.SIGTERM)


def _child(parent: int, main: Main, write_end: int, lifeline: int, log: Path, stacks: Path) -> None:
    """Never returns."""
    status = 1
    try:
        os.setpgid(0, 0)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        _redirect(log, {write_end, lifeline})
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # who knows more says it; the others must not die of it
        show_stacks_on_signal(stacks)
        main(Writer(write_end), lifeline)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stderr.flush()
        os._exit(status)


def _redirect(log: Path, keep: set[int]) -> None:
    """Standard input from nowhere, output to the log; nothing else of the orchestrator stays open."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in keep:
            with suppress(OSError):
                os.close(descriptor)
    sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False)


def end_with(lifeline: int) -> None:
    """Blocks until the orchestrator is gone: for processes that nobody else ends."""
    while os.read(lifeline, 1):
        pass


def show_stacks_on_signal(stacks: Path) -> None:
    """Of this process, into this file: when it crashes, and on SIGUSR1."""
    file: TextIO = open(stacks, "w")
    faulthandler.enable(file)
    faulthandler.register(signal.SIGUSR1, file)


def dump_stacks(children: list[Child]) -> str:
    """Python's stacks and what each says about itself, and native ones where a debugger is installed."""
    for child in children:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            with suppress(ProcessLookupError):
                os.kill(child.pid, number)
    time.sleep(SIGNAL_S)
    texts = [stacks_of(child.name, child.pid, child.stacks) + child.log_tail(20) for child in children]
    return "\n".join(texts)


def stacks_of(name: str, pid: int, stacks: Path) -> str:
    """What the process has written since SIGUSR1, and its native stacks."""
    text = stacks.read_text(errors="replace") if stacks.exists() else ""
    return f"--- {name} (pid {pid})\n{text}{_native_stacks(pid)}"


def _native_stacks(pid: int) -> str:
    debugger = shutil.which("gdb")
    if debugger is None:
        return ""
    command = [debugger, "-p", str(pid), "-batch", "-nx", "-ex", "thread apply all bt 10"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    wanted = [line for line in done.stdout.splitlines() if line.startswith(("#", "Thread"))]
    return "\n".join(wanted) + "\n"
