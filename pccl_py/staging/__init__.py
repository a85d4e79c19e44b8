"""Capturing a training state while training goes on: what is being copied, to which memory, and the fence in
front of every write to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pool import Pool

__all__ = ["Pool"]


def __getattr__(name: str) -> Any:
    """The pool when it is asked for: the fence needs no compiled core."""
    if name != "Pool":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .pool import Pool

    return Pool
