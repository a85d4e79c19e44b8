"""One rank's shard file for torch.distributed.checkpoint, written by the core past the page cache."""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..errors import CheckpointError
from ..values import limits, names
from . import native, safetensors_header
from .boxes import Box
from .files import sync_folder
from .manifest import Piece, Shard
from .manifest import Tensor as SavedTensor
from .rank_record import RankRecord
from .staging_pool import make_pool

TIMEOUT_S = 600.0


class ItemTensor(NamedTuple):
    """What of a tensor this rank writes: `box` of `shape`, which is all of `tensor`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    box: Box
    tensor: Tensor


_pool: native.StagingPool | None = None  # of this process; one save at a time has it
_turn = threading.Lock()


def write_shard(path: Path, file: str, rank: int, items: Sequence[ItemTensor]) -> RankRecord:
    """Durable when this returns. Tensors may be anywhere; those of a device come by the host's memory."""
    described = {item.name: SavedTensor(item.dtype, item.shape, ()) for item in items}
    full = [item for item in items if item.tensor.numel()]
    if not full:
        return RankRecord(rank, None, described)
    labels = _labels(full)
    rows = {label: item.tensor.cpu().contiguous() for label, item in zip(labels, full, strict=True)}
    entries = [
        (label, item.dtype, item.box.shape, rows[label].nbytes)
        for label, item in zip(labels, full, strict=True)
    ]
    plan = safetensors_header.plan(entries)
    ordered = list(plan.offsets)
    receipt = _written(path / file, plan, [rows[label] for label in ordered])
    sync_folder(path)
    crcs = dict(zip(ordered, (crc for (crc,) in struct.iter_unpack("<I", receipt.region_crcs)), strict=True))
    pieces: dict[str, list[Piece]] = {}
    for label, item in zip(labels, full, strict=True):
        pieces.setdefault(item.name, []).append(Piece(0, plan.offsets[label], item.box, crcs[label]))
    tensors = {
        name: SavedTensor(t.dtype, t.shape, tuple(pieces.get(name, ()))) for name, t in described.items()
    }
    return RankRecord(rank, Shard(file, receipt.file_bytes, len(plan.header), receipt.block_crcs), tensors)


def _labels(items: Sequence[ItemTensor]) -> list[str]:
    count: dict[str, int] = {}
    for item in items:
        count[item.name] = count.get(item.name, 0) + 1
    seen: dict[str, int] = {}
    labels = []
    for item in items:
        index = seen.get(item.name, 0)
        seen[item.name] = index + 1
        labels.append(names.in_shard(item.name, index, count[item.name]))
    return labels


def _written(path: Path, plan: safetensors_header.ShardPlan, rows: Sequence[Tensor]) -> native.SaveReceipt:
    global _pool
    with _turn:
        if _pool is None:
            _pool = make_pool(None, plan.file_bytes, warm=False)
        job = native.ShardSave(
            _pool,
            native.Disk(),
            path=str(path),
            recycle="",
            header=plan.header,
            regions=[(tensor.data_ptr(), tensor.nbytes) for tensor in rows],
            foreign=[],
            block_bytes=limits.BLOCK_BYTES,
            copy_threads=1,
            write_threads=2,
        )
        job.start()
        receipt = job.wait_durable(TIMEOUT_S)
        if receipt is None:
            job.cancel()
            raise CheckpointError(f"{path}: the disk did not take it within {TIMEOUT_S:g} s; it is given up")
    return receipt
