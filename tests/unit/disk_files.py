"""What tests of checkpoint files share: aligned memory, checksums, disks, plain calls of the core."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pccl_py import _core
from pccl_py.errors import from_code

MIB = 1 << 20
BLOCK = 4096
Array = npt.NDArray[np.uint8]
Run = tuple[int, int, int, int, int, int]

_core.on_error(from_code)


def aligned(count: int) -> Array:
    """`count` zero bytes at an address that is a multiple of 4096, readable up to the next one."""
    room = np.zeros(count + 2 * 4096, np.uint8)
    begin = -room.ctypes.data % 4096
    return room[begin : begin + count]


def noise(count: int, seed: int = 0) -> Array:
    data = aligned(count)
    data[:] = np.random.default_rng(seed).integers(0, 256, count, np.uint8)
    return data


def crcs_of(data: bytes, block: int = BLOCK) -> bytes:
    blocks = (data[at : at + block] for at in range(0, len(data), block))
    return b"".join(zlib.crc32(part).to_bytes(4, "little") for part in blocks)


def write(
    disk: _core.Disk, path: Path, data: Array, *, part: int = 16 * MIB, recycle: str = "", direct: bool = True
) -> _core.ShardWriter:
    """Writes the file in parts of `part` bytes and waits until it is on the device."""
    writer = _core.ShardWriter(disk, str(path), data.size, recycle=recycle, direct=direct)
    for at in range(0, data.size, part):
        writer.write(at, data.ctypes.data + at, min(part, data.size - at))
    writer.finish()
    return writer


def read(
    disk: _core.Disk,
    path: Path,
    size: int,
    crcs: bytes,
    runs: Sequence[Run],
    *,
    block: int = BLOCK,
    threads: int = 2,
) -> _core.ReadStats:
    return _core.read_verified(
        disk, str(path), file_bytes=size, block_bytes=block, crcs=crcs, runs=runs, threads=threads
    )


def read_whole(disk: _core.Disk, path: Path, data: bytes, *, block: int = BLOCK) -> bytes:
    """The file, read as one run and checked against the checksums of `data`."""
    to = np.full(len(data), 0xEE, np.uint8)
    run = (0, to.ctypes.data, len(data), 1, 0, 0)
    read(disk, path, len(data), crcs_of(data, block), [run], block=block)
    return to.tobytes()
