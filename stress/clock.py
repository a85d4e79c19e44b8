"""Wall clocks of our processes, which jump without this machine's: a library in LD_PRELOAD (clock_shim)
answers for the C library, and takes what it adds from a file that all share.

A run that wants it starts itself again with that library: see `start_again`.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import shlex
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SLOTS = 64
NOBODY, MASTER = 0, 1  # slots; the orchestrator's own clock never jumps
FILE = "STRESS_CLOCKS"
_BUILD = Path(__file__).resolve().parents[1] / "build" / "clock"
_SOURCE = Path(__file__).resolve().parent / "clock_shim" / "clock.cpp"


class NoClocks(RuntimeError):
    """The library cannot be compiled here; the text says why."""


def slot_of(place: int) -> int:
    return 2 + place % (SLOTS - 2)


def ready() -> bool:
    """Whether this process was started with clocks that jump."""
    return FILE in os.environ and hasattr(ctypes.CDLL(None), "stress_clock_slot")


def start_again(arguments: Sequence[str]) -> None:
    """This command once more, in this process, with clocks that jump. Raises NoClocks."""
    shim = _library()
    descriptor, path = tempfile.mkstemp(prefix="stress-clocks-")
    os.ftruncate(descriptor, 8 * SLOTS)
    os.close(descriptor)
    environment = os.environ | {FILE: path, "LD_PRELOAD": str(shim)}
    os.execve(sys.executable, [sys.executable, "-m", "stress", *arguments], environment)


def forget() -> None:
    """At the end of a run: removes the file."""
    if path := os.environ.get(FILE):
        Path(path).unlink(missing_ok=True)


def take(slot: int) -> None:
    """From here on this process has the clock of that slot; without the library nothing happens."""
    if ready():
        ctypes.CDLL(None).stress_clock_slot(slot)


def jump(slots: Sequence[int], seconds: float) -> None:
    """Sets the clocks of these slots off the machine's by so much; not that of the orchestrator."""
    with open(os.environ[FILE], "r+b") as file, mmap.mmap(file.fileno(), 8 * SLOTS) as memory:
        for slot in slots:
            if slot != NOBODY:
                struct.pack_into("<q", memory, 8 * slot, round(seconds * 1e9))


def _library() -> Path:
    path = _BUILD / f"clock-{_SOURCE.stat().st_mtime_ns}.so"
    if path.exists():
        return path
    _BUILD.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    flags = "-std=c++20 -O2 -Wall -Wextra -Wshadow -fPIC -shared".split()
    command = [*shlex.split(os.environ.get("CXX", "g++")), *flags, str(_SOURCE), "-o", str(part)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise NoClocks(f"a C++ compiler: {error}") from error
    if done.returncode != 0:
        raise NoClocks(f"a C++ compiler that takes {_SOURCE.name}:\n{done.stderr}")
    part.replace(path)
    return path
