"""A few bytes of tensors, taken when they are captured and again when they may be written: writes that torch
does not count (`.data`, numpy views, memory shared with others) are seen by them, if not all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import native
from .pieces import Piece

BYTES = 16  # at the begin and in the middle: what trains changes all of a tensor
PIECES_MAX = 256  # the largest: each look may miss the caches, and save() blocks for it


class Glimpses:
    """Of pieces that are copied in the background, on the host. Their memory is there while they are held."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        lazy = [
            (piece.rows.nbytes, index)
            for index, piece in enumerate(pieces)
            if piece.owner is not None and not piece.copied and piece.rows.device.type == "cpu"
        ]
        self.places: list[tuple[int, int]] = []  # addresses and bytes of what is looked at
        self._seen: dict[int, tuple[int, int, slice]] = {}  # by piece: address, first place, what was taken
        taken = 0
        for size, index in sorted(lazy, reverse=True)[:PIECES_MAX]:
            address, count = pieces[index].rows.data_ptr(), min(size, BYTES)
            if count:
                self._seen[index] = (address, len(self.places), slice(taken, taken + 2 * count))
                self.places += [(address, count), (address + (size - count) // 2, count)]
                taken += 2 * count
        self._all = native.Glimpses(self.places)

    def take(self) -> bytes:
        return self._all.take(0, len(self.places))

    def differs(self, index: int, piece: Piece, before: bytes) -> bool:
        if (seen := self._seen.get(index)) is None:
            return False
        address, place, taken = seen
        return piece.rows.data_ptr() != address or self._all.take(place, place + 2) != before[taken]
