"""Where keepers of this user are found: a folder that nobody else can enter, a socket for each keeper."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import SnapshotError

_SOCKET_PATH_MAX = 107  # of the kernel, without the zero


@dataclass(frozen=True, slots=True)
class Place:
    """Of one keeper. Who holds `lock` is the keeper; `log` has what it says."""

    socket: Path
    lock: Path
    log: Path


def folder() -> Path:
    """Made with mode 0700. Raises SnapshotError where it belongs to somebody else, or others may enter."""
    path = _candidate()
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        facts = path.lstat()
    except OSError as error:
        raise SnapshotError(
            f"{path}, where keepers of snapshots are found, cannot be made: {error.strerror}; set "
            "XDG_RUNTIME_DIR to a folder of yours"
        ) from None
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise SnapshotError(
            f"{path} is no folder that you alone can enter: remove it, or set XDG_RUNTIME_DIR to a folder of "
            "yours"
        )
    return path


def _candidate() -> Path:
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    path = Path(given) / "pccl"
    if given and Path(given).is_dir() and len(str(path)) + 40 < _SOCKET_PATH_MAX:
        return path
    return Path(tempfile.gettempdir() if len(tempfile.gettempdir()) < 50 else "/tmp") / f"pccl-{os.getuid()}"


def place(run: str, keeper: str) -> Place:
    word = hashlib.sha256(f"{run}\0{keeper}".encode()).hexdigest()[:24]
    here = folder()
    return Place(here / f"{word}.sock", here / f"{word}.lock", here / f"{word}.log")


def sockets() -> list[Path]:
    """Of all keepers of this user, also of those that are gone."""
    return sorted(folder().glob("*.sock"))
