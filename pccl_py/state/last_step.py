"""At which step ranks that train together end, once one of them was told to: the same for all of them.

A rank that is asked names the step after the one that it has just ended, in the store of torch's process
group. Each step has collectives that all ranks take part in: so nobody ends that next step before the name is
there, and everybody looks at the end of each.
"""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger("pccl_py")
_KEY = "pccl-last-step"
_made = 0  # in this process: ranks make theirs in one order


class LastStep:
    """`store`: None where this process trains by itself; `name`: the same on all ranks."""

    def __init__(self, store: Any = None, name: str = "") -> None:
        self._store, self._key = store, f"{_KEY}/{name}"
        self._reached = 0  # times: others go on, and may be told to end later
        self._last: int | None = None

    def reached(self, step: int, asked: bool) -> bool:
        """At the end of `step`: whether it is the last one of some. `asked`: this rank was told to end."""
        if self._store is None:
            return asked
        if self._last is None:
            try:
                self._last = self._named(step + 1, asked)
            except RuntimeError as error:  # its rank is gone: so is the group
                logger.warning("torch's store does not answer (%s): this rank ends by itself", error)
                self._store = None
                return asked
        if self._last is None or step < self._last:
            return False
        self._last, self._reached = None, self._reached + 1
        return True

    def _named(self, wish: int, asked: bool) -> int | None:
        key = f"{self._key}/{self._reached}"
        if asked:  # the first name stays
            return int(self._store.compare_set(key, "", str(wish)))
        return int(self._store.get(key)) if self._store.check([key]) else None


def of_process_group() -> LastStep:
    """Of the ranks of torch's default process group, where there is one."""
    global _made
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return LastStep()
    from torch.distributed.distributed_c10d import _get_default_store

    store: Any = _get_default_store()
    try:
        store = store.clone()  # a connection that no other thread waits on
    except (AttributeError, RuntimeError, NotImplementedError):
        pass  # some kinds of stores cannot be: then the group's own, where a look may wait for its turn
    _made += 1
    return LastStep(store, str(_made))
