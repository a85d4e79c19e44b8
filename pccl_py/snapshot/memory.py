"""Shared memory as both sides know it: memfds of a size that nobody can change, so that no access ever ends
a process with SIGBUS; populated once; and how much of it may be had."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import SnapshotMemoryError
from . import limits, native

F_SEAL_FUTURE_WRITE = 0x0010  # Linux 5.1: mappings made later are for reading alone
SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_HUGE = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")


def whole_units(count: int) -> int:
    """The bytes of a buffer for a file of `count`."""
    unit = limits.LARGE_UNIT if count >= limits.LARGE_FROM else limits.BUFFER_UNIT
    return max(-(-count // unit), 1) * unit


def slab_bytes(capacity: int) -> int:
    """Of the staging engine's for a buffer."""
    return limits.BUFFER_UNIT if capacity % limits.LARGE_UNIT else limits.LARGE_UNIT


def make(name: str, count: int, *, sealed: bool = True) -> int:
    """A memfd of that size, without pages yet. The caller's. `sealed` False: until resize()."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, count)
        if sealed:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SIZE_SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def resize(fd: int, count: int) -> None:
    """To its last size. What is new of it has its pages, if the rest has. Raises OSError."""
    before = os.fstat(fd).st_size
    os.ftruncate(fd, count)
    if count > before:
        os.posix_fallocate(fd, before, count - before)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SIZE_SEALS)


def sealed_copy(name: str, data: bytes) -> int:
    """A memfd that nobody can change any more. The caller's."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SIZE_SEALS | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL)
    except OSError as error:
        os.close(fd)
        raise SnapshotMemoryError(f"no memory for the table of a snapshot: {error.strerror}") from None
    return fd


def size_of(fd: int, *, constant: bool = False) -> int:
    """Of a memfd whose size nobody can change (`constant`: nor its bytes); -1 for all else."""
    wanted = SIZE_SEALS | (fcntl.F_SEAL_WRITE if constant else 0)
    try:
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & wanted != wanted:
            return -1
        return os.fstat(fd).st_size
    except OSError:
        return -1


def held(fd: int) -> int:
    """Bytes of a memfd that have pages: what it has taken from available() so far."""
    return os.fstat(fd).st_blocks * 512


def read_all(fd: int, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        got = os.pread(fd, min(count - len(data), 1 << 24), len(data))
        if not got:
            break
        data += got
    return bytes(data)


def fill(fd: int, count: int, wanted: Callable[[], bool], threads: int = 1) -> bool:
    """Gives a memfd all its pages, filled with zeros, huge ones where the system has them. False: it is not
    `wanted` any more. Raises OSError where there is no memory, RuntimeError where there is no thread."""
    if not count:
        return wanted()
    region = mmap.mmap(fd, count)
    huge = _huge_pages_on_advice()
    if huge:
        region.madvise(mmap.MADV_HUGEPAGE)
    whole = memoryview(region)

    def give(at: int) -> bool:
        if wanted():
            _give(fd, whole[at : at + limits.FILL_BYTES], at, huge)
            return True
        return False

    starts = range(0, count, limits.FILL_BYTES)
    if threads == 1:
        return all(map(give, starts))
    with ThreadPoolExecutor(threads) as pool:
        return all(pool.map(give, starts))


def _give(fd: int, part: memoryview, at: int, huge: bool) -> None:
    """What the file is given first is no huge page. Else it is: then a lack is an error here, and not the end
    of the process that touches it; zeros are for who populates, or the first touch would write them."""
    if not huge:
        os.posix_fallocate(fd, at, len(part))
    error = native.populate_pages(part, to_write=True)
    if error in (errno.EINVAL, errno.ENOSYS):  # before Linux 5.14
        os.posix_fallocate(fd, at, len(part))
    elif error:
        raise OSError(error, os.strerror(error))


def mapped(fd: int, count: int, *, to_write: bool, new: bool = False) -> npt.NDArray[np.uint8]:
    """Of a memfd, all at once: page by page, as they are used, it takes as long as to move or code what is in
    them. By mmap itself, nobody else would have the interpreter meanwhile. `new`: pages that held nothing."""
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if to_write else 0)
    whole = memoryview(mmap.mmap(fd, count, mmap.MAP_SHARED, protection))
    for at in range(0, count, limits.FILL_BYTES):
        if native.populate_pages(whole[at : at + limits.FILL_BYTES], to_write=new):  # before Linux 5.14
            whole = memoryview(mmap.mmap(fd, count, mmap.MAP_SHARED | mmap.MAP_POPULATE, protection))
            break
    return np.frombuffer(whole, np.uint8)


def _huge_pages_on_advice() -> bool:
    try:
        return any(f"[{word}]" in _HUGE.read_text() for word in ("advise", "within_size", "always"))
    except OSError:
        return False


def available() -> int:
    """Bytes that may still be had, by the machine and by every group of processes that this one is in."""
    found = [_meminfo(), *_groups()]
    return max(min(found) - limits.MARGIN_BYTES, 0)


def _meminfo() -> int:
    with open("/proc/meminfo") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return limits.BUFFER_BYTES_MAX


def _groups() -> list[int]:
    found: list[int] = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
                found += _climb(Path(root), path, "memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
            found += _climb(Path("/sys/fs/cgroup/memory"), path, *names)
    return found


def _climb(root: Path, path: str, limit: str, usage: str, prefix: str) -> list[int]:
    """What each group from this process's up to the root has left; a container may show the root alone."""
    found: list[int] = []
    here = root / path.lstrip("/")
    for folder in (here, *here.parents):
        if not folder.is_relative_to(root):
            break
        try:
            most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
            if most != "max":
                found.append(max(int(most) - used + _files(folder / "memory.stat", prefix), 0))
        except (OSError, ValueError):
            continue
    return found


def _files(stat: Path, prefix: str) -> int:
    """Cached files, which give way."""
    words = [line.split() for line in stat.read_text().splitlines()]
    wanted = {f"{prefix}active_file", f"{prefix}inactive_file"}
    return sum(int(word[1]) for word in words if word and word[0] in wanted)


def exhausted(needed: int, free: int, what: str) -> str:
    return (
        f"{what} needs {needed >> 20} MiB of shared memory, and {free >> 20} MiB can be had (of the machine, "
        "the container's limit, or a control group's): two buffers as large as the state are kept. Give "
        "more memory, end other runs' keepers (`python -m pccl_py snapshots ls`), or go without snapshots"
    )
