"""What this rank tells the others of its shard."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from ..state.boxed import Boxed
from ..state.train_state import Taken
from .boxes import Box
from .manifest import Piece as SavedPiece
from .manifest import Shard, Tensor
from .rank_record import RankRecord
from .shard_plans import ShardContent


def record_of(
    rank: int,
    file: str,
    taken: Taken,
    content: ShardContent,
    sums: tuple[bytes, bytes],
) -> RankRecord:
    """All tensors of the state, with the pieces that this rank writes of them. `sums`: the CRC-32 of the
    shard's blocks and of its regions, as little-endian words."""
    of_blocks, of_regions = sums
    plan = content.plan
    saved = {
        piece.name: SavedPiece(0, plan.offsets[piece.name], Box(piece.start, piece.shape), crc)
        for piece, (crc,) in zip(content.pieces, struct.iter_unpack("<I", of_regions), strict=True)
    }
    for alias in content.aliases:
        saved[alias.name] = saved[alias.of]
    tensors = {name: _tensor(name, box, saved) for name, box in taken.boxes.items()}
    shard = Shard(file, plan.file_bytes, len(plan.header), of_blocks)
    return RankRecord(rank, shard, tensors, taken.shared, taken.private)


def _tensor(name: str, box: Boxed, saved: Mapping[str, SavedPiece]) -> Tensor:
    return Tensor(box.dtype, box.shape, (saved[name],) if name in saved else ())
