"""Dumps of all communicators of a process, also at a signal."""

from __future__ import annotations

import os
import signal
import time
import weakref
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Protocol

from ..config import Config
from ..errors import PcclError, UsageError
from ..logs import logger


class Dumped(Protocol):
    def dump(self, path: str | os.PathLike[str], /) -> Path: ...


_observed: weakref.WeakSet[Dumped] = weakref.WeakSet()


def observe(communicator: Dumped) -> None:
    """From here on dump_all() knows it, while it lives."""
    _observed.add(communicator)


def dump_all(folder: str | os.PathLike[str] | None = None) -> list[Path]:
    """One file per communicator of this process, in `folder` or that of PCCL_TRACE_DIR; UsageError without
    either. A communicator that has left has nothing to tell; one that cannot be written is in the log."""
    to = Path(folder if folder is not None else Config.load().trace_dir)
    if to == Path():
        raise UsageError("dumps need a folder: dump_all(folder), or PCCL_TRACE_DIR")
    paths: list[Path] = []
    for number, communicator in enumerate(list(_observed)):
        name = f"{os.uname().nodename}-{os.getpid()}-{time.time_ns()}-{number}.pccltrace"
        try:
            with suppress(PcclError):
                paths.append(communicator.dump(to / name))
        except OSError as error:
            logger.warning("no dump of recorded events: %s", error)
    return paths


def dump_on_signal(number: int = signal.SIGUSR1, folder: str | os.PathLike[str] | None = None) -> None:
    """From now on that signal dumps all communicators of this process, then runs the handler that was there.

    Only the main thread may call it (ValueError), and it is the one that dumps: within 0.1 s where it waits
    in a call of this library; not while it is stuck in foreign code. The file that PCCL_TRACE_DIR keeps is
    current even then.
    """
    to = Path(folder if folder is not None else Config.load().trace_dir)
    if to == Path():
        raise UsageError("dumps need a folder: dump_on_signal(folder=...), or PCCL_TRACE_DIR")
    before = signal.getsignal(number)

    def dumps(received: int, frame: FrameType | None) -> None:
        for path in dump_all(to):
            logger.warning("the last events are in %s", path)
        if callable(before):
            before(received, frame)

    signal.signal(number, dumps)
