"""What ties the core to Python: its errors become our exceptions, its lines our log."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable
from typing import Protocol

from .errors import from_code

logger = logging.getLogger("pccl_py")


class CoreModule(Protocol):
    def on_error(self, make: Callable[[int, str], Exception], /) -> None: ...
    def on_log(self, log: Callable[[str], None] | None, /) -> None: ...


_tied: set[int] = set()


def write(line: str) -> None:
    """Called from a thread of the library. Changes of the view are news; anything else wants attention."""
    level = logging.INFO if line.startswith("view ") or ": view " in line else logging.WARNING
    logger.log(level, "%s", line)


def tie(core: CoreModule) -> None:
    """By each module that imports the core; the first one counts. Logging stops before the interpreter."""
    if id(core) in _tied:
        return
    _tied.add(id(core))
    core.on_error(from_code)
    core.on_log(write)
    atexit.register(core.on_log, None)
