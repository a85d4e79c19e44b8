"""What this rank tells the others of its shard."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Protocol

from ..state.boxed import Boxed
from ..state.train_state import Taken
from .boxes import Box
from .manifest import Piece as SavedPiece
from .manifest import Shard, Tensor
from .pieces import Alias, Piece
from .rank_record import RankRecord
from .safetensors_header import ShardPlan


class Receipt(Protocol):
    """What is known of a shard once all of it is copied: its bytes, and the CRC-32 of its blocks and regions,
    as little-endian words."""

    @property
    def file_bytes(self) -> int: ...
    @property
    def block_crcs(self) -> bytes: ...
    @property
    def region_crcs(self) -> bytes: ...


def record_of(
    rank: int,
    file: str,
    taken: Taken,
    pieces: Sequence[Piece],
    aliases: Sequence[Alias],
    plan: ShardPlan,
    receipt: Receipt,
) -> RankRecord:
    """All tensors of the state, with the pieces that this rank wrote of them."""
    saved = {
        piece.name: SavedPiece(0, plan.offsets[piece.name], Box(piece.start, piece.shape), crc)
        for piece, (crc,) in zip(pieces, struct.iter_unpack("<I", receipt.region_crcs), strict=True)
    }
    for alias in aliases:
        saved[alias.name] = saved[alias.of]
    tensors = {name: _tensor(name, box, saved) for name, box in taken.boxes.items()}
    shard = Shard(file, receipt.file_bytes, len(plan.header), receipt.block_crcs)
    return RankRecord(rank, shard, tensors, taken.shared, taken.private)


def _tensor(name: str, box: Boxed, saved: Mapping[str, SavedPiece]) -> Tensor:
    return Tensor(box.dtype, box.shape, (saved[name],) if name in saved else ())
