"""From the mapped bytes of snapshots into the tensors of a state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..checkpoint import boxes
from ..checkpoint.manifest import Manifest, Piece
from ..checkpoint.targets import Targets
from ..errors import DamagedError
from ..values import dtypes


class Part(NamedTuple):
    """What a piece of a tensor has of a target: rows [first, last) of the piece hold it, and of these the
    elements `inside`. `target`: the view that they go to."""

    piece: Piece
    dtype: str
    first: int
    last: int
    inside: boxes.Box
    target: Tensor

    @property
    def rows(self) -> boxes.Box:
        """Of the piece, as a box of the whole tensor."""
        box = self.piece.box
        if not box.shape:
            return box
        start, shape = (box.start[0] + self.first, *box.start[1:]), (self.last - self.first, *box.shape[1:])
        return boxes.Box(start, shape)

    @property
    def offset(self) -> int:
        """In the file, of the first of these rows."""
        box = self.piece.box
        row = box.size // box.shape[0] if box.shape else box.size
        return self.piece.offset + self.first * row * dtypes.itemsize(self.dtype)

    @property
    def bytes(self) -> int:
        return self.rows.size * dtypes.itemsize(self.dtype)

    def fill(self, raw: Tensor) -> None:
        """`raw`: uint8, the bytes of these rows."""
        saved = raw.view(dtypes.to_torch(self.dtype)).view(self.rows.shape)
        self.target.copy_(part_of(saved, self.inside, self.rows))

    def straight(self) -> Tensor | None:
        """The target's own bytes, where these rows are all of it, and lie as they do."""
        plain = self.target.is_contiguous() and self.target.device.type == "cpu"
        if not plain or self.inside.shape != self.rows.shape:
            return None
        return self.target.detach().reshape(-1).view(torch.uint8)


def parts(manifest: Manifest, targets: Targets) -> Iterator[Part]:
    """Of all targets, by tensor."""
    for name, places in targets.boxes.items():
        entry = manifest.tensors[name]
        for box in places:
            wanted = boxes.Box(box.start, box.local_shape)
            for piece in entry.pieces:
                common = boxes.intersect(piece.box, wanted)
                if common is not None and common.size:
                    first, last = _rows(common, piece.box)
                    target = part_of(box.tensor, common, wanted)
                    yield Part(piece, entry.dtype, first, last, common, target)


def _rows(common: boxes.Box, of: boxes.Box) -> tuple[int, int]:
    if not common.shape:
        return 0, 1
    first = common.start[0] - of.start[0]
    return first, first + common.shape[0]


def raw_of(data: memoryview, offset: int, size: int) -> Tensor:
    if offset < 0 or offset + size > len(data):
        raise DamagedError(f"a piece of {size} bytes at {offset} lies outside of the snapshot")
    return torch.frombuffer(data, dtype=torch.uint8, count=size, offset=offset)


def part_of(tensor: Tensor, common: boxes.Box, of: boxes.Box) -> Tensor:
    """The elements of `common` in a tensor that holds the box `of`."""
    start = tuple(first - begin for first, begin in zip(common.start, of.start, strict=True))
    return tensor[boxes.Box(start, common.shape).slices()] if common.shape else tensor


def is_whole(manifest: Manifest, targets: Targets) -> bool:
    """Whether the pieces have all that the targets want."""
    for name, places in targets.boxes.items():
        pieces = manifest.tensors[name].pieces
        for box in places:
            wanted = boxes.Box(box.start, box.local_shape)
            common = [boxes.intersect(piece.box, wanted) for piece in pieces]
            if sum(one.size for one in common if one is not None) != wanted.size:
                return False
    return True
