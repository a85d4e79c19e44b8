"""Reading the tensors of one step into memory: for each shard file, the byte runs that are asked for."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import DamagedError, StateError
from ..state.boxed import Boxed
from ..values import dtypes
from . import boxes, native
from .manifest import Manifest

THREADS = 4  # of which two wait for the disk while two sum and copy


def read_tensors(
    disk: native.Disk,
    folder: Path,
    manifest: Manifest,
    wanted: Mapping[str, Sequence[Boxed]],
    begin: Callable[[], None] = lambda: None,
) -> int:
    """Fills the local parts; returns the bytes they have. Every block is verified before it is copied.

    `begin` is called before the first one is. Raises DamagedError that names file and block; what was filled
    until then is undefined.
    """
    runs: dict[int, list[boxes.Run]] = defaultdict(list)
    after: list[tuple[Tensor, Tensor]] = []
    total = 0
    for name, places in wanted.items():
        for box in places:
            memory = _host_memory(box.tensor, after)
            _add_runs(runs, manifest, name, box, memory)
            total += memory.nbytes
    _expect_files(folder, manifest, runs)
    begin()
    for number, asked in sorted(runs.items()):
        shard = manifest.shards[number]
        native.read_verified(
            disk,
            str(folder / shard.file),
            file_bytes=shard.bytes,
            block_bytes=manifest.block_bytes,
            crcs=shard.crcs,
            runs=asked,
            threads=THREADS,
        )
    with torch.no_grad():
        for target, memory in after:
            target.copy_(memory)
    return total


def _expect_files(folder: Path, manifest: Manifest, numbers: Iterable[int]) -> None:
    missing = [
        manifest.shards[n].file for n in sorted(numbers) if not (folder / manifest.shards[n].file).exists()
    ]
    if missing:
        raise DamagedError(
            f"{folder} has not {', '.join(missing[:8])}{' ...' if len(missing) > 8 else ''}, which this "
            "rank needs "
            f"of step {manifest.step}: copy them here from the hosts that have them, or load with the "
            "ranks and "
            "hosts that saved it"
        )


def _host_memory(tensor: Tensor, after: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The tensor's own memory; what is no host memory, or overlaps itself, is read aside and copied after."""
    spread = all(stride > 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1)
    if tensor.device.type == "cpu" and spread:
        return tensor
    if not spread:
        raise StateError("a tensor whose elements share memory (expanded) cannot be loaded: clone it first")
    memory = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda")
    after.append((tensor, memory))
    return memory


def _add_runs(
    runs: dict[int, list[boxes.Run]], manifest: Manifest, name: str, box: Boxed, memory: Tensor
) -> None:
    entry = manifest.tensors[name]
    itemsize = dtypes.itemsize(entry.dtype)
    wanted = boxes.Box(box.start, tuple(memory.shape))
    strides = [stride * itemsize for stride in memory.stride()]
    if math.prod(memory.shape) == 0:
        return
    for piece in entry.pieces:
        runs[piece.shard] += boxes.runs(piece.box, wanted, itemsize, piece.offset, strides, memory.data_ptr())
