"""Files of a step's folder: opened without following links, written so that a crash tears nothing."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CheckpointError, DamagedError

PART = ".part"  # ends the name of a file that is being written
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def explained(action: str) -> Iterator[None]:
    """An OSError inside becomes a CheckpointError that says what could not be done, and what helps."""
    try:
        yield
    except OSError as error:
        helps = {
            errno.ENOSPC: "; free space, or keep fewer steps",
            errno.EDQUOT: "; the quota is used up",
            errno.EROFS: "; the file system is mounted read-only",
            errno.EACCES: "; give this user the right to it",
            errno.EIO: "; the disk fails: look into the kernel's log, and save elsewhere",
        }.get(error.errno or 0, "")
        raise CheckpointError(f"cannot {action}: {error.strerror or error}{helps}") from error


@contextmanager
def opened(folder: Path, name: str) -> Iterator[tuple[int, int]]:
    """A regular file of the folder as (descriptor, size); neither the folder nor the file may be a link.

    Raises OSError as open does, DamagedError where it is something else than a file.
    """
    inside = os.open(folder, _FOLDER | os.O_NOFOLLOW)
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe would wait for its writer
        try:
            file = os.open(name, flags, dir_fd=inside)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise DamagedError(f"{folder / name} is a link, which is never followed") from None
            raise
    finally:
        os.close(inside)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise DamagedError(f"{folder / name} is no regular file")
        yield file, status.st_size
    finally:
        os.close(file)


def read_at(file: int, offset: int, size: int) -> bytes:
    """`size` bytes from `offset`; fewer at the end of the file."""
    parts = []
    while size > 0 and (part := os.pread(file, size, offset)):
        parts.append(part)
        offset, size = offset + len(part), size - len(part)
    return b"".join(parts)


def sync_folder(folder: Path) -> None:
    """Names that were given and taken in it are durable when this returns."""
    file = os.open(folder, _FOLDER)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write_durably(folder: Path, name: str, data: bytes) -> None:
    """The file has all of `data`, or is what it was before, whenever the machine stops. The folder's own
    entry in its parent is the caller's."""
    write_part(folder, name, data)
    os.rename(folder / f"{name}{PART}", folder / name)
    sync_folder(folder)


def write_part(folder: Path, name: str, data: bytes) -> None:
    """The first half of that: `data` are durable, under the temporary name."""
    part = folder / f"{name}{PART}"
    part.unlink(missing_ok=True)
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)
