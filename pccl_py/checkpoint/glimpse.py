"""A few bytes of tensors, taken when they are captured and again when they may be written: writes that torch
does not count (`.data`, numpy views, memory shared with others) are seen by them, if not all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_char
from typing import Any

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
        # Views of that memory, which are cheaper to read than an address is.
        self._places: dict[int, tuple[int, Any, Any]] = {}
        for size, index in sorted(lazy, reverse=True)[:PIECES_MAX]:
            address, count = pieces[index].rows.data_ptr(), min(size, BYTES)
            if count:
                few = c_char * count
                middle = few.from_address(address + (size - count) // 2)
                self._places[index] = (address, few.from_address(address), middle)

    def take(self) -> dict[int, tuple[bytes, bytes]]:
        return {index: (first.raw, middle.raw) for index, (_, first, middle) in self._places.items()}

    def differs(self, index: int, piece: Piece, before: dict[int, tuple[bytes, bytes]]) -> bool:
        place = self._places.get(index)
        if place is None:
            return False
        address, first, middle = place
        return piece.rows.data_ptr() != address or (first.raw, middle.raw) != before[index]
