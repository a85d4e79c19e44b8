"""One save in flight, on the side of its tensors: held until copied, guarded by the fence, checked for writes
that came past it."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence

from torch import Tensor

from ..errors import CheckpointError, StateError
from ..staging import fence
from . import native
from .foreign import DeviceMoments, copy_foreign
from .pieces import Piece

# Between two looks at a save that waits for its disk, so that a hanging one is named.
NOTICE_S = 5.0


class StagedSave:
    """From `start()` until `staged()`: pieces are copied in the background.

    The threads that train call `pass_fence`; the thread that saves calls `staged`. `waited_s`: how long the
    fence held those that train.
    """

    def __init__(self, job: native.ShardSave, pieces: Sequence[Piece], timeout_s: float) -> None:
        self._job = job
        self._pieces = pieces
        self._timeout_s = timeout_s
        self._moments = DeviceMoments(pieces)
        self._versions = [_version(piece.rows) for piece in pieces]
        self._owned: dict[int | None, list[int]] = defaultdict(list)
        for index, piece in enumerate(pieces):
            self._owned[piece.owner].append(index)
        self._passed: set[int | None] = {0}  # owners whose tensors may have changed since
        self._lock = threading.Lock()
        self.waited_s = 0.0
        self.fault: CheckpointError | None = None

    def start(self) -> None:
        """Copies what anybody may write before it returns; the rest goes on in the background."""
        self._job.start()
        fence.guard(self)
        try:
            if anybodys := self._owned.get(None):
                self._wait(anybodys)
                with self._lock:
                    self._check(None)
        except CheckpointError as error:
            self.fail(error)
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
            copy_foreign(self._job, self._pieces, self._moments)
            self._wait(None, help=False)
            with self._lock:
                for owner in list(self._owned):
                    self._check(owner)
        finally:
            fence.release(self)
            with self._lock:
                self._pieces, self._versions = (), []
        if self.fault is not None:
            raise self.fault

    def _wait(self, pieces: Sequence[int] | None, *, help: bool = True) -> None:
        done = self._job.fence(pieces, self._timeout_s) if help else self._job.wait_staged(self._timeout_s)
        if not done:
            raise CheckpointError(
                f"the tensors were not copied within {self._timeout_s:g} s: the disk takes nothing, or the "
                "machine is overloaded; this checkpoint is given up and earlier ones stay"
            )

    def _check(self, owner: int | None) -> None:
        """Of tensors that are copied now and that nobody could write through the fence before now."""
        if owner in self._passed:
            return
        self._passed.add(owner)
        for index in self._owned[owner]:
            if self._versions and _version(self._pieces[index].rows) != self._versions[index]:
                raise StateError(
                    f"{self._pieces[index].name} was written while it was saved, past the fence: step its "
                    "optimizer through step(), call pccl_py.staging.fence.before_write() before other "
                    "writes, or save with lazy=False. This checkpoint is given up, earlier ones stay"
                )


def _version(tensor: Tensor) -> int:
    """Torch counts writes; an alarm only: numpy views and `.data` pass unnoticed."""
    return 0 if tensor.is_inference() else tensor._version


def addresses(pieces: Sequence[Piece]) -> list[tuple[int, int]]:
    return [(piece.rows.data_ptr(), piece.rows.nbytes) for piece in pieces]


def foreign(pieces: Sequence[Piece]) -> list[int]:
    """Those that the core cannot read: on a device."""
    return [index for index, piece in enumerate(pieces) if piece.rows.device.type != "cpu"]
