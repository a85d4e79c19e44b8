"""What tests start dies with the run, however it ends: at a test's deadline, too, and when the run is killed.

A watcher, a process of its own, waits for the end of the run and kills all that has the run's mark: in its
environment (programs, and what these start in turn) or as an open memfd of that name (forks of the run).
A death signal of the kernel (PR_SET_PDEATHSIG) would come when the thread ends that started a process.

    python -IS leftovers.py PID MARK      the watcher of that run
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

VARIABLE = "TEST_PROCESSES_OF"  # the marks of this run and of those that it is a test in
WITHIN_S = 10.0


def watch() -> None:
    """From here on: whatever this process starts ends soon after it."""
    mark = f"tests-{os.getpid()}-{os.urandom(8).hex()}"
    command = [sys.executable, "-IS", __file__, str(os.getpid()), mark]
    unmarked = {name: value for name, value in os.environ.items() if name != VARIABLE}
    started = os.posix_spawn(sys.executable, command, unmarked)
    _, status = os.waitpid(started, 0)  # it goes on in a fork: nobody here has to wait for it
    if status != 0:
        raise RuntimeError(f"no watcher of the tests' processes: status {status}")
    os.environ[VARIABLE] = f"{os.environ.get(VARIABLE, '')} {mark}".strip()
    os.memfd_create(mark)  # stays open


def _main(run: int, mark: str) -> None:
    watched = os.pidfd_open(run)
    if os.fork() > 0:
        return
    os.setsid()  # Ctrl-C is for the run
    select.select([watched], [], [])
    killed: dict[int, str] = {}
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until and (found := _kill(mark.encode())):
        killed |= found
        time.sleep(0.01)
    if killed:
        lines = [f"  {pid}: {command[:150]}" for pid, command in killed.items()]
        print("\nkilled, for the tests left them:", *lines, sep="\n", file=sys.stderr, flush=True)


def _kill(mark: bytes) -> dict[int, str]:
    """Whom it has met: their commands by number."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        pid = int(process.name)
        with suppress(OSError):  # it is gone, or somebody else's
            handle = os.pidfd_open(pid)
            try:
                if pid != os.getpid() and _has(process, mark):
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    found[pid] = command.decode(errors="replace")
            finally:
                os.close(handle)
    return found


def _has(process: Path, mark: bytes) -> bool:
    if mark in (process / "environ").read_bytes():
        return True
    for fd in (process / "fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            if mark in os.fsencode(os.readlink(fd)):
                return True
    return False


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
