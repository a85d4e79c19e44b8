"""A few bytes of tensors, taken when they are captured and again when they may be written: writes that torch
does not count (`.data`, numpy views, memory shared with others) are seen by them, if not all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import string_at

from .pieces import Piece

BYTES = 16  # at the begin and in the middle: what trains changes all of a tensor
PIECES_MAX = 256  # the largest: a look costs a third of a microsecond, and save() blocks for it


class Glimpses:
    """Of pieces that are copied in the background, on the host. Their memory is there while they are held."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        lazy = [
            (piece.rows.nbytes, index)
            for index, piece in enumerate(pieces)
            if piece.owner is not None and not piece.copied and piece.rows.device.type == "cpu"
        ]
        self._places: dict[int, tuple[int, int, int]] = {}
        for size, index in sorted(lazy, reverse=True)[:PIECES_MAX]:
            address, count = pieces[index].rows.data_ptr(), min(size, BYTES)
            if count:
                self._places[index] = (address, address + (size - count) // 2, count)

    def take(self) -> dict[int, tuple[bytes, bytes]]:
        return {index: self._look(*place) for index, place in self._places.items()}

    def differs(self, index: int, piece: Piece, before: dict[int, tuple[bytes, bytes]]) -> bool:
        place = self._places.get(index)
        if place is None:
            return False
        return piece.rows.data_ptr() != place[0] or self._look(*place) != before[index]

    @staticmethod
    def _look(first: int, middle: int, count: int) -> tuple[bytes, bytes]:
        return string_at(first, count), string_at(middle, count)
