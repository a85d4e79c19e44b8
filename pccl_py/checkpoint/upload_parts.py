"""A local shard file as the parts of its object: read once, checked against the manifest before they are
sent."""

from __future__ import annotations

import bisect
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import DamagedError, StateError
from ..values.dtypes import itemsize
from . import remote_format
from .files import explained, opened, read_at
from .manifest import Manifest
from .remote_format import Frame, Index

PART_BYTES = 8 << 20
BLOCK_BYTES_MAX = 64 << 20  # a block is read as a whole: it bounds the memory of an upload


class Part(NamedTuple):
    data: bytes
    raw: int  # bytes of the shard file that are sent with it and all before it
    frames: tuple[Frame, ...] = ()


def part_bytes(file_bytes: int, parts_max: int) -> int:
    """Whole MiB, so few that a store takes all parts."""
    return max(PART_BYTES, -(-file_bytes // (parts_max - parts_max // 10)) + (1 << 20) - 1 >> 20 << 20)


def plain_parts(folder: Path, manifest: Manifest, shard: int, begin: int, size: int) -> Iterator[Part]:
    """From byte `begin` of the file, where an earlier part ended. Raises DamagedError, OSError."""
    reader = _Checked(folder, manifest, shard)
    count = max(size // reader.block_bytes, 1) * reader.block_bytes
    while begin < reader.bytes:
        data = reader.read(begin, count)
        begin += len(data)
        yield Part(data, begin)


def packed_parts(
    folder: Path, manifest: Manifest, shard: int, begin: int, size: int, before: list[Frame]
) -> Iterator[Part]:
    """The same, compressed; `before`: the frames that were sent. The last part ends with the index."""
    reader = _Checked(folder, manifest, shard)
    if begin >= reader.bytes:
        return
    frame_bytes = max(remote_format.FRAME_BYTES // reader.block_bytes, 1) * reader.block_bytes
    widths = _Widths(manifest, shard)
    frames = list(before)
    waiting: list[bytes] = []
    fresh: list[Frame] = []
    while begin < reader.bytes:
        data = reader.read(begin, frame_bytes)
        frame, stored = remote_format.encode_frame(data, widths.at(begin + len(data) // 2))
        begin += len(data)
        waiting.append(stored)
        fresh.append(frame)
        if begin < reader.bytes and sum(map(len, waiting)) >= size:
            yield Part(b"".join(waiting), begin, tuple(fresh))
            frames += fresh
            waiting, fresh = [], []
    end = remote_format.encode_end(Index(frame_bytes, reader.bytes, (*frames, *fresh)))
    yield Part(b"".join([*waiting, end]), reader.bytes, tuple(fresh))


class _Checked:
    """Reads whole blocks; each is what was saved."""

    def __init__(self, folder: Path, manifest: Manifest, shard: int) -> None:
        self._folder, self._shard = folder, manifest.shards[shard]
        self.block_bytes, self.bytes = manifest.block_bytes, self._shard.bytes
        if self.block_bytes > BLOCK_BYTES_MAX:
            raise StateError(
                f"{folder}: blocks of {self.block_bytes} bytes; at most {BLOCK_BYTES_MAX} are uploaded"
            )

    def read(self, begin: int, count: int) -> bytes:
        name = self._shard.file
        with explained(f"read {self._folder / name} to upload it"), opened(self._folder, name) as (file, _):
            data = read_at(file, begin, min(count, self.bytes - begin))
        view = memoryview(data)
        for offset in range(0, min(count, self.bytes - begin), self.block_bytes):
            block = (begin + offset) // self.block_bytes
            if zlib.crc32(view[offset : offset + self.block_bytes]) != self._shard.crc(block):
                raise DamagedError(
                    f"{self._folder / self._shard.file}: block {block} (from byte {begin + offset}) "
                    f"is not what was "
                    "saved; the step is not uploaded, save another one"
                )
        return data


class _Widths:
    """How many bytes an element has, by the place in the file."""

    def __init__(self, manifest: Manifest, shard: int) -> None:
        found = [
            (piece.offset, min(itemsize(tensor.dtype), 8))
            for tensor in manifest.tensors.values()
            for piece in tensor.pieces
            if piece.shard == shard
        ]
        found.sort()
        self._begins = [begin for begin, _ in found]
        self._sizes = [size for _, size in found]

    def at(self, offset: int) -> int:
        index = bisect.bisect_right(self._begins, offset) - 1
        return self._sizes[index] if index >= 0 else 1
