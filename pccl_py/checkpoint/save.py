"""One save in flight, on the side of its tensors: held until copied, guarded by the fence, checked for writes
that came past it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from torch import Tensor

from ..errors import CheckpointError, StateError
from ..staging import fence
from . import native
from .foreign import ForeignCopier
from .pieces import Piece
from .shard_plans import ShardContent

LOOK_S = 0.1  # how often the thread that saves looks whether something has failed


class StagedSave:
    """From `start()` until `staged()`: pieces are copied in the background.

    The threads that train call `pass_fence`; the thread that saves calls `staged`. `waited_s`: how long the
    fence held those that train.
    """

    def __init__(self, job: native.CaptureJob, content: ShardContent, timeout_s: float) -> None:
        self._job = job
        self._pieces: Sequence[Piece] = content.pieces
        self._owned = content.owned
        self._timeout_s = timeout_s
        self._copier = ForeignCopier(job, content.pieces, content.foreign) if content.foreign else None
        self._versions = content.versions()
        self._glimpses, self._seen = content.glimpses, content.glimpses.take()
        self._passed: set[int | None] = {0}  # owners whose tensors may have changed since
        self._lock = threading.Lock()
        self.waited_s = 0.0
        self.fault: CheckpointError | None = None

    def start(self) -> None:
        """Copies what anybody may write before it returns; the rest goes on in the background."""
        self._job.start()
        fence.guard(self)
        if self._copier is not None:
            self._copier.start()
        try:
            if anybodys := self._owned.get(None):
                self._wait(anybodys)
                with self._lock:
                    self._check(None)
        except BaseException as error:  # also an interrupt of the training: nobody else knows this save
            self.fail(error if isinstance(error, CheckpointError) else CheckpointError(f"save(): {error!r}"))
            raise

    def pass_fence(self, owner: int | None) -> None:
        if self.fault is not None or (owner is not None and owner not in self._owned):
            return
        begun = time.perf_counter()
        try:
            self._wait(None if owner is None else self._owned[owner])
            with self._lock:
                for held in list(self._owned) if owner is None else [owner]:
                    self._check(held)
        except CheckpointError as error:
            self.fail(error)
        self.waited_s += time.perf_counter() - begun

    def fail(self, error: CheckpointError) -> None:
        """The first one counts. Nothing waits for this save any more."""
        with self._lock:
            self.fault = self.fault or error
        fence.release(self)
        self._job.cancel()

    def staged(self) -> None:
        """Waits until all is copied, then lets go of the tensors. Raises what made the save fail."""
        try:
            self._await_staged()
            with self._lock:
                for owner in list(self._owned):
                    self._check(owner)
        except CheckpointError as error:
            self._job.cancel()  # else the thread of devices waits for slabs that no disk gives back
            raise (self.fault or error) from None  # who gave it up knows why
        finally:
            fence.release(self)
            if self._copier is not None:
                self._copier.join(self._timeout_s)
            with self._lock:
                self._pieces, self._versions = (), []
        if self._copier is not None:
            self._copier.raise_fault()  # the last part may count as copied before the thread has told
        if self.fault is not None:
            raise self.fault

    def _wait(self, pieces: Sequence[int] | None) -> None:
        if not self._job.fence(pieces, self._timeout_s):
            raise self._late()

    def _await_staged(self) -> None:
        """Takes no part in copying, which is for the copy threads with their low priority and for those who
        wait at the fence; nor does it wake up before there is news, for that may be on a core that trains."""
        until = time.monotonic() + self._timeout_s
        while not self._job.wait_staged(LOOK_S, copying=False):  # raises where the save has ended
            if self._copier is not None:
                self._copier.raise_fault()
            if time.monotonic() > until:
                raise self._late()

    def _late(self) -> CheckpointError:
        return CheckpointError(
            f"the tensors were not copied within {self._timeout_s:g} s: the disk takes nothing, or the "
            "machine "
            "is overloaded; this checkpoint is given up and earlier ones stay"
        )

    def _check(self, owner: int | None) -> None:
        """Of tensors that are copied now and that nobody could write through the fence before now."""
        if owner in self._passed:
            return
        self._passed.add(owner)
        for index in self._owned[owner]:
            if self._versions and self._written(index):
                raise StateError(
                    f"{self._pieces[index].name} was written while it was saved, past the fence: step its "
                    "optimizer through step(), call pccl_py.staging.fence.before_write() before other "
                    "writes, or save with lazy=False. This checkpoint is given up, earlier ones stay"
                )

    def _written(self, index: int) -> bool:
        piece = self._pieces[index]
        if _version(piece.rows) != self._versions[index]:
            return True
        return self._glimpses.differs(index, piece, self._seen)


def _version(tensor: Tensor) -> int:
    """Torch counts writes; an alarm only: numpy views and `.data` pass it unnoticed."""
    return 0 if tensor.is_inference() else tensor._version
