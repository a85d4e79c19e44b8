"""The package's logger, and what ties the core to Python: its errors become our exceptions, its lines our log."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable
from typing import Protocol

from .errors import from_code

logger = logging.getLogger("pccl_py")


class CoreModule(Protocol):
    def on_error(self, make: Callable[[int, str], Exception], /) -> None: ...
    def on_log(self, log: Callable[[str], None] | None, /) -> None: ...


_tied: set[int] = set()
_here = threading.local()


def write(line: str) -> None:
    """Called from a thread of the library. Changes of the view are news; anything else wants attention."""
    _here.library = True
    try:
        level = logging.INFO if line.startswith("view ") or ": view " in line else logging.WARNING
        logger.log(level, "%s", line)
    finally:
        _here.library = False


def on_library_thread() -> bool:
    """Inside write(): garbage may be collected here too, but a thread must not end itself."""
    return getattr(_here, "library", False)


def tie(core: CoreModule) -> None:
    """Once per process, by each module that imports the core. No line comes once the interpreter is ending."""
    if id(core) in _tied:
        return
    _tied.add(id(core))
    core.on_error(from_code)
    core.on_log(write)
    atexit.register(core.on_log, None)
