"""Writes a step by ordinary buffered files: slow, simple, the same bytes as the engine of the core.

For `import`, for tests, and for whoever has no compiled core.
"""

from __future__ import annotations

import os
import time as clock
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import StateError
from ..values import limits, names
from ..values.bounded_json import Json
from ..values.dtypes import itemsize
from . import folder, safetensors_header
from .boxes import Box, whole
from .files import PART, explained
from .manifest import Manifest, Piece, Shard, Tensor
from .manifest_body import shard_file
from .rank_record import RankRecord, merge

Bytes = bytes | bytearray | memoryview


class Source(NamedTuple):
    """A tensor, or a box of one, to be saved; `read` gives its bytes, dense and little-endian, when they are
    written, one tensor after another."""

    name: str
    dtype: str
    shape: tuple[int, ...]  # of the whole tensor
    read: Callable[[], Bytes]
    box: Box | None = None  # None: all of it


def bytes_of(source: Source) -> int:
    """How many it gives."""
    return (source.box or whole(source.shape)).size * itemsize(source.dtype)


class BlockSums:
    """CRC-32 of each block of a file that comes in any portions."""

    def __init__(self, block_bytes: int) -> None:
        self._block_bytes = block_bytes
        self._left = block_bytes
        self._crc = 0
        self._done: list[int] = []

    def add(self, data: Bytes) -> None:
        rest = memoryview(data).cast("B")
        while rest:
            part = rest[: self._left]
            self._crc = zlib.crc32(part, self._crc)
            self._left -= len(part)
            rest = rest[len(part) :]
            if self._left == 0:
                self._done.append(self._crc)
                self._crc, self._left = 0, self._block_bytes

    def words(self) -> bytes:
        """Of all blocks, the last one too if it is short; little-endian."""
        last = [self._crc] if self._left < self._block_bytes else []
        return np.array([*self._done, *last], "<u4").tobytes()


def write_shard(
    path: Path,
    rank: int,
    world: int,
    sources: Sequence[Source],
    block_bytes: int = limits.BLOCK_BYTES,
    progress: Callable[[int], None] | None = None,
) -> RankRecord:
    """Writes and publishes a rank's shard file in the step's folder. Returns its record, without objects.

    Raises StateError for names and sizes that do not fit, CheckpointError for what the disk refuses.
    """
    boxes = [source.box or whole(source.shape) for source in sources]
    labels = _labels(sources)
    plan = safetensors_header.plan(
        [
            (label, source.dtype, box.shape, box.size * itemsize(source.dtype))
            for label, source, box in zip(labels, sources, boxes, strict=True)
        ]
    )
    by_label = dict(zip(labels, zip(sources, boxes, strict=True), strict=True))
    sums = BlockSums(block_bytes)
    sums.add(plan.header)
    pieces: dict[str, list[Piece]] = {}
    name = shard_file(rank, world)
    with explained(f"write {path / name}"), open(path / f"{name}{PART}", "wb") as file:
        file.write(plan.header)
        for label, offset in plan.offsets.items():
            source, box = by_label[label]
            data = _bytes_of(source, box)
            file.write(data)
            sums.add(data)
            if progress is not None:
                progress(len(memoryview(data).cast("B")))
            pieces.setdefault(source.name, []).append(Piece(0, offset, box, zlib.crc32(data)))
        file.flush()
        os.fsync(file.fileno())
    folder.publish(path, name)
    of = {source.name: source for source in sources}
    tensors = {name: Tensor(of[name].dtype, of[name].shape, tuple(pieces[name])) for name in of}
    return RankRecord(rank, Shard(name, plan.file_bytes, len(plan.header), sums.words()), tensors)


def write_step(
    root: Path,
    step: int,
    sources: Sequence[Source],
    *,
    objects: Mapping[str, Json] | None = None,
    notes: Mapping[str, str] | None = None,
    time: float | None = None,
    block_bytes: int = limits.BLOCK_BYTES,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """A whole step of one rank: begun, written, committed. Raises as its parts do, and then removes it."""
    path = folder.begin(root, step)
    try:
        record = write_shard(path, 0, 1, sources, block_bytes, progress)
        made = merge(
            [RankRecord(0, record.shard, record.tensors, dict(objects or {}))],
            step=step,
            time=clock.time() if time is None else time,
            world=1,
            block_bytes=block_bytes,
            notes=notes,
        )
        folder.commit(path, made)
    except BaseException:
        folder.remove(path)
        raise
    return made


def source_of_array(name: str, array: np.ndarray[Any, Any]) -> Source:
    """All of a numpy array. Raises StateError for a dtype that safetensors does not have."""
    from ..values.dtypes import of_numpy

    dtype = of_numpy(array.dtype.newbyteorder("="))
    if dtype is None:
        raise StateError(f"{names.shown(name)}: numpy's {array.dtype} has no place in a checkpoint")
    little = array.dtype.newbyteorder("<")
    return Source(name, dtype, array.shape, lambda: array.astype(little, copy=False).tobytes())


def _labels(sources: Sequence[Source]) -> list[str]:
    """Names in the shard's header: several pieces of a tensor are numbered."""
    count: dict[str, int] = {}
    for source in sources:
        count[source.name] = count.get(source.name, 0) + 1
    seen: dict[str, int] = {}
    labels = []
    for source in sources:
        index = seen.get(source.name, 0)
        seen[source.name] = index + 1
        labels.append(names.in_shard(source.name, index, count[source.name]))
    return labels


def _bytes_of(source: Source, box: Box) -> Bytes:
    data = memoryview(source.read()).cast("B")
    expected = box.size * itemsize(source.dtype)
    if len(data) != expected:
        raise StateError(f"{names.shown(source.name)} has {len(data)} bytes, not {expected}")
    return data
