"""The yardstick of checkpoints: what a disk takes and gives without any of our code.

Two threads move 16 MiB at a time past the page cache, one file, no checksums. Where O_DIRECT is refused (file
systems in memory or behind a network) everything goes through the page cache.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SLICE = 16 << 20
THREADS = 2


def write(path: Path, size: int) -> float:
    """Seconds until `size` bytes (a multiple of 4096) are on the device. An existing file is overwritten."""
    fill = os.urandom(4096) * (SLICE // 4096)

    def move(fd: int, memory: memoryview, at: int) -> None:
        done = os.pwrite(fd, memory, at)
        if done != len(memory):
            raise OSError(f"{path}: {done} of {len(memory)} bytes written at {at}")

    buffers = [_buffer(fill) for _ in range(THREADS)]
    fd = _open(path, os.O_RDWR | os.O_CREAT)
    try:
        begun = time.perf_counter()
        if os.fstat(fd).st_size < size:
            os.posix_fallocate(fd, 0, size)
        os.truncate(fd, size)
        _in_slices(size, buffers, lambda memory, at: move(fd, memory, at))
        os.fdatasync(fd)
        return time.perf_counter() - begun
    finally:
        os.close(fd)


def read(path: Path) -> float:
    """Seconds to read the whole file. `forget(path)` first, or it may come from memory."""

    def move(fd: int, memory: memoryview, at: int) -> None:
        done = os.preadv(fd, [memory], at)
        if done != len(memory):
            raise OSError(f"{path}: {done} of {len(memory)} bytes read at {at}")

    buffers = [_buffer(bytes(SLICE)) for _ in range(THREADS)]
    fd = _open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        begun = time.perf_counter()
        _in_slices(size, buffers, lambda memory, at: move(fd, memory, at))
        return time.perf_counter() - begun
    finally:
        os.close(fd)


def forget(path: Path) -> None:
    """The file's pages leave the page cache. A host below a virtual machine may keep its own."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def _buffer(fill: bytes) -> memoryview:
    # Aligned, which an array of numpy is not, and in large pages: the device takes fewer, longer requests.
    memory = mmap.mmap(-1, SLICE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    memory[:] = fill
    return memoryview(memory)


def _open(path: Path, flags: int) -> int:
    try:
        fd = os.open(path, flags | os.O_DIRECT, 0o644)
        os.preadv(fd, [_buffer(bytes(SLICE))[:4096]], 0)
    except OSError:
        return os.open(path, flags, 0o644)
    return fd


def _in_slices(size: int, buffers: list[memoryview], move: Callable[[memoryview, int], None]) -> None:
    starts = iter(range(0, size, SLICE))  # a thread that asks it holds the GIL

    def take_turns(memory: memoryview) -> None:
        for at in starts:
            move(memory[: min(SLICE, size - at)], at)

    with ThreadPoolExecutor(len(buffers)) as pool:
        for future in [pool.submit(take_turns, memory) for memory in buffers]:
            future.result()
