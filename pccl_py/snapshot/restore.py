"""From a snapshot in memory into a training state, as from a checkpoint."""

from __future__ import annotations

import json
import time

import torch
from torch import Tensor

from ..checkpoint import boxes
from ..checkpoint.coordination import Coordination
from ..checkpoint.manifest import Manifest, Piece
from ..checkpoint.stats import LoadInfo
from ..checkpoint.targets import Fit, Targets
from ..errors import DamagedError, NoSnapshotError, ProtocolError, StateError
from ..state.train_state import TrainState
from ..values import dtypes
from .keeper_client import Kept
from .verified import Verified


class Restore:
    """One restore of this trainer, the `number`-th; all ranks do the same, step by step.

    The newest step that all of them hold, and whose bytes are sound on all, is taken; nothing is filled from
    any other. `where`: who holds `kept`, for messages.
    """

    def __init__(
        self, kept: list[Kept], coordination: Coordination, number: int, timeout_s: float, where: str
    ) -> None:
        self._kept = {one.step: one for one in kept}
        self._coordination, self._timeout_s, self._where = coordination, timeout_s, where
        self._number, self._round = number, 0
        self.skipped: list[tuple[int, str]] = []  # steps whose bytes are wrong at some rank

    def into(self, state: TrainState, step: int | str, fit: Fit) -> LoadInfo:
        """Raises NoSnapshotError, on all ranks, and StateError."""
        begun = time.perf_counter()
        skipped = self.skipped
        for candidate in self._candidates(step):
            verified, why = self._verified(candidate)
            try:
                said = [text.decode() for text in self._exchange(why.encode())]
                if verified is not None and not any(said):
                    manifest = verified.table.manifest(candidate, 0.0, "memory")
                    world, what = self._coordination.world, f"the snapshot of step {candidate}"
                    targets = fit.targets(state, manifest, world, what)
                    _expect_whole(targets, manifest)
                    count = _copy(verified.data, manifest, targets)
                    targets.take()
                    return self._info(candidate, count, begun, targets, skipped)
            finally:
                if verified is not None:
                    verified.close()
            skipped.append((candidate, "; ".join(text for text in said if text)))
        raise NoSnapshotError(_nothing(self._where, step, sorted(self._kept), skipped))

    def _exchange(self, words: bytes) -> list[bytes]:
        self._round += 1
        return self._coordination.exchange(f"restore/{self._number}/{self._round}", words, self._timeout_s)

    def _candidates(self, step: int | str) -> list[int]:
        """Newest first: those that all ranks hold."""
        if step != "latest" and type(step) is not int:
            raise StateError(f"step {step!r}: a number, or 'latest'")
        told = self._exchange(json.dumps(sorted(self._kept)).encode())
        common = set.intersection(*(set(json.loads(words)) for words in told))
        return sorted((one for one in common if step in ("latest", one)), reverse=True)

    def _verified(self, step: int) -> tuple[Verified | None, str]:
        try:
            return Verified(self._kept[step]), ""
        except (DamagedError, ProtocolError) as error:
            return None, str(error)

    def _info(
        self, step: int, count: int, begun: float, targets: Targets, skipped: list[tuple[int, str]]
    ) -> LoadInfo:
        seconds = time.perf_counter() - begun
        missing = (*targets.missing, *targets.begun)
        return LoadInfo(step, self._where, count, seconds, missing, tuple(targets.unexpected), tuple(skipped))


def _expect_whole(targets: Targets, manifest: Manifest) -> None:
    """This trainer's snapshot holds what it held itself."""
    for name, places in targets.boxes.items():
        pieces = manifest.tensors[name].pieces
        for box in places:
            wanted = boxes.Box(box.start, box.local_shape)
            common = [boxes.intersect(piece.box, wanted) for piece in pieces]
            if sum(one.size for one in common if one is not None) != wanted.size:
                raise StateError(
                    f"this trainer's snapshot has only a part of {name}: it was taken with another layout or "
                    "as another rank; load a checkpoint"
                )


def _copy(data: memoryview, manifest: Manifest, targets: Targets) -> int:
    """Bytes that were copied: the pieces of each tensor, as far as the state has them."""
    count = 0
    with torch.no_grad():
        for name, places in targets.boxes.items():
            entry = manifest.tensors[name]
            for box in places:
                wanted = boxes.Box(box.start, box.local_shape)
                for piece in entry.pieces:
                    common = boxes.intersect(piece.box, wanted)
                    if common is not None and common.size:
                        saved = _memory(data, entry.dtype, piece)
                        _part(box.tensor, common, wanted).copy_(_part(saved, common, piece.box))
                count += box.tensor.nbytes
    return count


def _memory(data: memoryview, dtype: str, piece: Piece) -> Tensor:
    size = dtypes.itemsize(dtype) * piece.box.size
    if piece.offset + size > len(data):
        raise DamagedError(f"a piece of {size} bytes at {piece.offset} lies outside of the snapshot")
    raw = torch.frombuffer(data, dtype=torch.uint8, count=size, offset=piece.offset)
    return raw.view(dtypes.to_torch(dtype)).view(piece.box.shape)


def _part(tensor: Tensor, common: boxes.Box, of: boxes.Box) -> Tensor:
    """The elements of `common` in a tensor that holds the box `of`."""
    start = tuple(first - begin for first, begin in zip(common.start, of.start, strict=True))
    return tensor[boxes.Box(start, common.shape).slices()] if common.shape else tensor


def _nothing(where: str, step: int | str, kept: list[int], skipped: list[tuple[int, str]]) -> str:
    if skipped:
        return "; ".join(f"step {number}: {why}" for number, why in skipped) + ". Load the newest checkpoint"
    held = f"steps {kept}" if kept else "no complete snapshot"
    asked = "none that all ranks hold" if step == "latest" and kept else f"not step {step}"
    return f"{where} holds {held}{f', {asked}' if kept else ''}: load the newest checkpoint"
