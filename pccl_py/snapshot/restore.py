"""From a snapshot in memory into a training state, as from a checkpoint."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from ..checkpoint import boxes, dtypes
from ..checkpoint.manifest import Manifest, Piece
from ..checkpoint.stats import LoadInfo
from ..errors import DamagedError, NoSnapshotError, ProtocolError, StateError
from ..state.boxed import World
from ..state.targets import Mapped, Targets, targets_of
from ..state.train_state import TrainState
from .keeper_client import Kept
from .verified import Verified

_SHOWN = 8


def restore(
    state: TrainState,
    kept: list[Kept],
    world: World,
    step: int | str,
    where: str,
    *,
    strict: bool,
    parts: list[str] | None,
    mapping: Mapped | None,
) -> LoadInfo:
    """The newest of `kept` whose bytes are sound, or the step asked for. Nothing is filled from one that is
    not. Raises NoSnapshotError, StateError."""
    begun = time.perf_counter()
    skipped: list[tuple[int, str]] = []
    for one in sorted(kept, key=lambda kept: -kept.step):
        if step != "latest" and step != one.step:
            continue
        try:
            with Verified(one) as verified:
                return _fill(state, one, verified, world, where, begun, skipped, strict, parts, mapping)
        except (DamagedError, ProtocolError) as error:
            skipped.append((one.step, str(error)))
    raise NoSnapshotError(_nothing(where, step, kept, skipped))


def _fill(
    state: TrainState,
    kept: Kept,
    verified: Verified,
    world: World,
    where: str,
    begun: float,
    skipped: list[tuple[int, str]],
    strict: bool,
    parts: list[str] | None,
    mapping: Mapped | None,
) -> LoadInfo:
    manifest = verified.table.manifest(kept.step, time.time(), str(kept.fd))
    targets = targets_of(state, manifest, world, parts, mapping)
    if strict and (targets.missing or targets.unexpected):
        raise StateError(
            f"the snapshot of step {kept.step} and the state differ: missing in the snapshot: "
            f"{_some(targets.missing)}; not in the state: {_some(targets.unexpected)}. Restore with "
            "strict=False, parts= or mapping="
        )
    _expect_whole(targets, manifest)
    count = _copy(verified.data, manifest, targets)
    targets.take()
    seconds = time.perf_counter() - begun
    missing = (*targets.missing, *targets.begun)
    return LoadInfo(kept.step, where, count, seconds, missing, tuple(targets.unexpected), tuple(skipped))


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


def _nothing(where: str, step: int | str, kept: list[Kept], skipped: list[tuple[int, str]]) -> str:
    if skipped:
        return "; ".join(f"step {number}: {why}" for number, why in skipped) + ". Load the newest checkpoint"
    held = ", ".join(str(one.step) for one in kept) or "no complete snapshot"
    asked = "" if step == "latest" else f", step {step} is not among them"
    return f"{where} holds {held}{asked}: load the newest checkpoint"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "nothing"
