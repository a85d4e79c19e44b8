"""Writes a step anew with another number of shard files. Loading never needs it: any number of ranks reads
any step; it is for tools that expect one file, and for hosts that shall hold a part each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..errors import UsageError
from ..values import limits
from ..values.bounded_json import Json
from ..values.dtypes import itemsize
from . import folder
from .boxes import Box
from .manifest import Manifest, Tensor
from .plain_reader import read_tensor
from .plain_writer import Source, write_shard
from .rank_record import RankRecord, merge

# Smaller tensors stay whole, in the shard that has least so far.
DIVIDED_FROM_BYTES = 1 << 20


def reshard(
    path: Path,
    manifest: Manifest,
    root: Path,
    shards: int,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """The step in the folder `path`, with that many shards, in the other root. Private values of ranks keep
    their ranks.

    Raises UsageError for a number below 1 or below that of the ranks with private values, and what reading
    and writing raise; then nothing is left in the root."""
    least = max(manifest.private, default=0) + 1
    if not least <= shards <= limits.SHARDS_MAX:
        raise UsageError(
            f"{shards} shards: {least} to {limits.SHARDS_MAX} for a step with values of {least} ranks"
        )
    divided = _divide(path, manifest, shards)
    target = folder.begin(root, manifest.step)
    try:
        records = [
            write_shard(target, rank, shards, sources, progress=progress)
            for rank, sources in enumerate(divided)
        ]
        made = merge(
            [
                RankRecord(rank, r.shard, r.tensors, _first(rank, manifest), manifest.private.get(rank, {}))
                for rank, r in enumerate(records)
            ],
            step=manifest.step,
            time=manifest.time,
            world=shards,
            notes=manifest.notes,
        )
        folder.commit(target, made)
    except BaseException:
        folder.remove(target)
        raise
    return made


def _first(rank: int, manifest: Manifest) -> dict[str, Json]:
    """Common values are told by one rank."""
    return dict(manifest.objects) if rank == 0 else {}


def _divide(path: Path, manifest: Manifest, shards: int) -> list[list[Source]]:
    """For each shard what it holds: rows of large tensors, small ones whole."""
    found: list[list[Source]] = [[] for _ in range(shards)]
    sizes = [0] * shards
    for name, tensor in manifest.tensors.items():
        size = itemsize(tensor.dtype) * Box((0,) * len(tensor.shape), tensor.shape).size
        rows = tensor.shape[0] if tensor.shape else 1
        if size < DIVIDED_FROM_BYTES or rows < shards:
            rank = sizes.index(min(sizes))
            found[rank].append(_source(path, manifest, name, tensor, 0, rows))
            sizes[rank] += size
            continue
        for rank in range(shards):
            first, last = rows * rank // shards, rows * (rank + 1) // shards
            found[rank].append(_source(path, manifest, name, tensor, first, last))
            sizes[rank] += size // shards
    return found


def _source(path: Path, manifest: Manifest, name: str, tensor: Tensor, first: int, last: int) -> Source:
    if tensor.shape:
        box = Box((first, *(0 for _ in tensor.shape[1:])), (last - first, *tensor.shape[1:]))
    else:
        box = Box((), ())
    return Source(name, tensor.dtype, tensor.shape, partial(read_tensor, path, manifest, name, box), box)
