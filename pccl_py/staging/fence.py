"""The fence: whoever writes tensors of a training state asks it first, and waits for exactly those of them
that a save still copies. Pure Python without torch; free where no save is under way.

    before_write(owner=optimizer)     the optimizer's step hook: tensors that this optimizer writes
    before_write()                    anything of any save: the outer step, shared state received, a load

Called on the threads that train; saves come and go on the thread that saves.
"""

from __future__ import annotations

import threading
from typing import Protocol


class Guarded(Protocol):
    """A save whose tensors are being copied."""

    def pass_fence(self, owner: int | None) -> None:
        """Returns when what `owner` (an id; None: anybody) writes is copied, or the save has failed. Never
        raises for the save's own failure: that is told to whoever saves next."""


_lock = threading.Lock()
_guarded: tuple[Guarded, ...] = ()  # oldest first; replaced as a whole, so that readers need no lock


def guard(save: Guarded) -> None:
    global _guarded
    with _lock:
        _guarded = (*_guarded, save)


def release(save: Guarded) -> None:
    global _guarded
    with _lock:
        _guarded = tuple(held for held in _guarded if held is not save)


def before_write(owner: object | None = None) -> None:
    """`owner`: the optimizer that is about to step; None: any tensor may be written."""
    for save in _guarded:
        save.pass_fence(None if owner is None else id(owner))
