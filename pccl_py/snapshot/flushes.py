"""Some snapshots are written to the disk, too, by a Checkpointer, from the buffer that they lie in."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..checkpoint.memory_save import Bytes, MemorySave
from ..checkpoint.shard_plans import ShardContent
from ..errors import CheckpointError, SnapshotError, UsageError
from ..state.train_state import Taken
from . import native


class Flushes:
    """`every`: steps that this divides; None: none. `checkpoints`: who writes them, perhaps told later."""

    def __init__(self, every: int | None, checkpoints: Any, taken_every: int | None) -> None:
        if every is not None and (type(every) is not int or every < 1 or every % (taken_every or 1)):
            raise UsageError(f"flush_every={every!r}: a whole number that every={taken_every} divides")
        if every is None and checkpoints is not None:
            raise UsageError("checkpoints= without flush_every=: at which steps?")
        self._every = every
        self.checkpoints: Any = None
        self._under_way: dict[int, MemorySave] = {}  # by the buffer's inode
        self._mapped: dict[int, Bytes] = {}  # the same: once for all, since pages are slow to come
        if checkpoints is not None:
            self.to(checkpoints)

    @property
    def wanted(self) -> bool:
        return self._every is not None

    @property
    def durable_step(self) -> int | None:
        last = None if self.checkpoints is None else self.checkpoints.stats.last
        return None if last is None else int(last.step)

    def to(self, checkpoints: Any) -> None:
        if checkpoints.every is not None:
            raise UsageError("snapshots are flushed to a Checkpointer that has every=, too: leave that out")
        self.checkpoints = checkpoints

    def due(self, step: int, last: bool) -> bool:
        if self._every is None or (step % self._every and not last):
            return False
        if self.checkpoints is None:
            raise UsageError("flush_every= without checkpoints=: pass the Checkpointer that writes them")
        return True

    def begin(
        self,
        step: int,
        content: ShardContent,
        taken: Taken,
        capture: native.MemoryCapture,
        fd: int,
        buffers: Sequence[int],
    ) -> MemorySave | None:
        """From `fd`, one of the buffers that there are now. None: the Checkpointer has too much to do, and
        was told to skip then; or the keeper is gone at this moment."""
        try:
            memory = self._map(fd, buffers)
        except (OSError, ValueError) as error:
            self.refuse(step, CheckpointError(f"the snapshot's buffer is gone: {error}"))
            return None
        made: MemorySave | None = self.checkpoints.save_captured(step, content, taken, capture, memory)
        if made is not None:
            self._under_way[os.fstat(fd).st_ino] = made
        return made

    def _map(self, fd: int, buffers: Sequence[int]) -> Bytes:
        inode = os.fstat(fd).st_ino
        if inode not in self._mapped:
            self.keep_only(buffers)
            mapped = mmap.mmap(fd, os.fstat(fd).st_size, mmap.MAP_SHARED, mmap.PROT_READ)
            self._mapped[inode] = np.frombuffer(mapped, np.uint8)
        return self._mapped[inode]

    def keep_only(self, buffers: Sequence[int]) -> None:
        """Others than these, which larger ones have replaced, give back their memory, once the disk has what
        lies in them."""
        if not self._mapped and not self._under_way:
            return
        held = {os.fstat(one).st_ino for one in buffers if one >= 0}
        self._mapped = {key: one for key, one in self._mapped.items() if key in held}
        self._under_way = {
            key: one for key, one in self._under_way.items() if key in held or not one.wait_free(0)
        }

    def refuse(self, step: int, error: BaseException) -> None:
        """This rank has no snapshot of a step that is due; the others hear of it."""
        self.checkpoints.refuse_captured(step, error)

    def is_read(self, fd: int) -> bool:
        """Whether the disk has not taken what lies in that buffer."""
        one = self._under_way.get(os.fstat(fd).st_ino)
        return one is not None and not one.wait_free(0)

    def await_free(self, fd: int, timeout_s: float) -> None:
        one = self._under_way.pop(os.fstat(fd).st_ino, None)
        if one is not None and not one.wait_free(timeout_s):
            self._under_way[os.fstat(fd).st_ino] = one
            raise SnapshotError(
                f"the disk has not taken a snapshot within {timeout_s:g} s: flush more seldom, or see what "
                "holds it up"
            )

    def await_all(self, timeout_s: float) -> None:
        """Nobody reads the buffers any more, or time is over."""
        for one in self._under_way.values():
            one.wait_free(timeout_s)
        self._under_way.clear()
        self._mapped.clear()


def told(flush: MemorySave | None, error: BaseException | None) -> None:
    """Of the capture: it is complete, or why not."""
    if flush is not None:
        known = error is None or isinstance(error, CheckpointError)
        flush.captured(error if known else CheckpointError(f"{type(error).__name__}: {error}"))  # type: ignore[arg-type]
