"""What one rank writes of a state: the pieces of its shard file, in the file's order, with their memory."""

from __future__ import annotations

import zlib
from typing import NamedTuple

from torch import Tensor

from ..state.boxed import Boxed, share
from ..state.train_state import Taken


class Piece(NamedTuple):
    """Rows of one tensor. `rows`: the memory itself, contiguous; a view of the caller's tensor where that is
    contiguous, `copied`: else a copy of this moment.

    owner   id of the optimizer that alone writes it, 0: nobody does, it is a copy; None: anybody may
    """

    name: str
    rows: Tensor
    dtype: str
    global_shape: tuple[int, ...]
    start: tuple[int, ...]
    owner: int | None
    copied: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.rows.shape)


class Alias(NamedTuple):
    """A second name for memory that another piece already has (tied weights)."""

    name: str
    of: str


def pieces_of(taken: Taken) -> tuple[list[Piece], list[Alias]]:
    """In the file's order: by falling alignment, then as the state has them. Nothing for what other ranks
    write, and for tensors without elements."""
    pieces: list[Piece] = []
    aliases: list[Alias] = []
    seen: dict[tuple[object, ...], str] = {}
    for name, box in taken.boxes.items():
        first, last = share(box, zlib.crc32(name.encode()))
        if first == last:
            continue
        local = box.tensor
        key = (local.data_ptr(), first, last, local.shape, local.stride(), box.dtype, box.shape, box.start)
        if key in seen:
            aliases.append(Alias(name, seen[key]))
            continue
        seen[key] = name
        pieces.append(_piece(name, box, first, last, taken.owners.get(name)))
    pieces.sort(key=lambda piece: -piece.rows.element_size())
    return pieces, aliases


def _piece(name: str, box: Boxed, first: int, last: int, owner: int | None) -> Piece:
    rows, start = box.tensor, box.start
    if rows.ndim and last - first < rows.shape[0]:
        rows, start = rows[first:last], (start[0] + first, *start[1:])
    if rows.is_contiguous():
        return Piece(name, rows, box.dtype, box.shape, start, owner, False)
    return Piece(name, rows.contiguous(), box.dtype, box.shape, start, 0, True)
