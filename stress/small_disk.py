"""A small disk of our own, which can be filled: a file system in memory that only our processes see."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18


class NoDisk(RuntimeError):
    """This machine does not let us mount one; the text says what is missing."""


class SmallDisk:
    """`folder` is it, for this process and those that it forks from here on; it is gone with them."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        libc = ctypes.CDLL(None, use_errno=True)
        _check(libc.unshare(_CLONE_NEWNS), "a namespace for mounts")
        _check(libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None), "mounts of its own")
        options = f"size={size},mode=700".encode()
        _check(libc.mount(b"stress", os.fsencode(folder), b"tmpfs", 0, options), "a tmpfs")
        self._ballast = folder / "ballast"

    def fill(self, but: int = 0) -> None:
        """Takes what is free, less `but` bytes."""
        free = os.statvfs(self.folder)
        wanted = free.f_bavail * free.f_frsize - but
        if wanted > 0:
            descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, wanted)
            except OSError:
                pass  # somebody was faster: it is full all the same
            finally:
                os.close(descriptor)

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)


def _check(status: int, what: str) -> None:
    if status != 0:
        raise NoDisk(f"{what} (root is needed): {os.strerror(ctypes.get_errno())}")
