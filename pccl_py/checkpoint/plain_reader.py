"""Reads tensors of a step by ordinary files, each piece checked by its checksum before it is used."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

from ..errors import CheckpointError, DamagedError, NoCheckpointError
from ..values import names
from ..values.dtypes import itemsize
from .boxes import Box, dense_strides, intersect, runs, whole
from .files import explained, opened, read_at
from .manifest import Manifest, Piece, Tensor


def read_tensor(path: Path, manifest: Manifest, name: str, box: Box | None = None) -> bytearray:
    """The bytes of a tensor of the step in this folder, or of a box of it; dense, little-endian.

    Raises NoCheckpointError for a tensor that the step does not have, DamagedError where bytes are not those
    that were saved, CheckpointError where a file cannot be read.
    """
    tensor = manifest.tensors.get(name)
    if tensor is None:
        raise NoCheckpointError(f"step {manifest.step} has no tensor {names.shown(name)}")
    wanted = whole(tensor.shape) if box is None else box
    if not wanted.inside(tensor.shape):
        raise CheckpointError(f"{names.shown(name)} has shape {tensor.shape}, and not all of {wanted}")
    item = itemsize(tensor.dtype)
    into = bytearray(wanted.size * item)
    strides = dense_strides(wanted.shape, item)
    for piece in tensor.pieces:
        if intersect(piece.box, wanted) is not None:
            _copy(read_piece(path, manifest, tensor, piece), piece.box, into, wanted, item, strides)
    return into


def read_piece(path: Path, manifest: Manifest, tensor: Tensor, piece: Piece) -> bytes:
    """All bytes of a piece, checked."""
    shard = manifest.shards[piece.shard]
    size = piece.box.size * itemsize(tensor.dtype)
    with explained(f"read {path / shard.file}"), opened(path, shard.file) as (file, _):
        data = read_at(file, piece.offset, size)
    if len(data) != size or zlib.crc32(data) != piece.crc32:
        block = manifest.block_bytes
        first, last = piece.offset // block, (piece.offset + size - 1) // block
        raise DamagedError(
            f"{path / shard.file}: bytes {piece.offset} to {piece.offset + size} (blocks {first} to {last}) "
            "are not those that were saved: load another step, or fetch this file anew"
        )
    return data


def _copy(data: bytes, piece: Box, into: bytearray, wanted: Box, item: int, strides: Sequence[int]) -> None:
    for offset, address, size, rows, file_stride, memory_stride in runs(piece, wanted, item, 0, strides):
        for row in range(rows):
            begin, to = offset + row * file_stride, address + row * memory_stride
            into[to : to + size] = data[begin : begin + size]
