"""What all snapshots of a lane have at the same place, bit for bit, needs no parity: any keeper has it, and
gives it to who lost it. Replicas of a model; not what is each peer's own.

Found by block: keepers tell each other the checksums that the blocks were taken with; of those that agree
each makes a digest of its own bytes, which nothing else has by chance; where all digests agree, the bytes do.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import DamagedError, ProtocolError
from ..values import limits as files
from . import limits, table
from .generation import Lane, Range
from .share import Bytes

DIGEST_BYTES = 16  # of SHA-256: two different blocks agree with 2**-128
_BLOCK = struct.Struct("<I")
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Checksums:
    """Of the blocks of a snapshot of `bytes`. `block_bytes` 0: they are not known."""

    bytes: int
    block_bytes: int
    crcs: npt.NDArray[np.uint32]


def own_words(lane: Lane, words: bytes) -> bytes:
    """By the lane's table: block_bytes, then the CRC-32 of each block."""
    try:
        told = table.decode(words, f"the table of trainer {lane.trainer!r}")
    except DamagedError:
        return _BLOCK.pack(0)
    count = -(-lane.bytes // told.block_bytes)
    if len(told.crcs) != 4 * count:
        return _BLOCK.pack(0)
    return _BLOCK.pack(told.block_bytes) + told.crcs


def checksums(lanes: Sequence[Lane], words: bytes) -> list[Checksums]:
    """Of a keeper's lanes, from anybody's bytes. Raises ProtocolError."""
    found, at = [], 0
    for lane in lanes:
        if len(words) < at + _BLOCK.size:
            raise ProtocolError("a keeper's checksums are cut off")
        (size,) = _BLOCK.unpack_from(words, at)
        at += _BLOCK.size
        if size and not files.BLOCK_BYTES_MIN <= size <= files.BLOCK_BYTES_MAX:
            raise ProtocolError(f"a keeper has checksums of blocks of {size} bytes")
        end = at + 4 * (-(-lane.bytes // size) if size else 0)
        if len(words) < end:
            raise ProtocolError("a keeper's checksums are cut off")
        found.append(Checksums(lane.bytes, size, np.frombuffer(words[at:end], "<u4")))
        at = end
    if at != len(words):
        raise ProtocolError("a keeper says more than its checksums")
    return found


def candidates(of_all: Sequence[Checksums]) -> Numbers:
    """Blocks that may be identical in all snapshots of a lane: of the same size, with the same checksum."""
    none = np.empty(0, np.int64)
    first = of_all[0] if len(of_all) > 1 else Checksums(0, 0, none.astype(np.uint32))
    size = first.block_bytes
    if not size or any(one.block_bytes != size for one in of_all):
        return none
    shortest = min(one.bytes for one in of_all)
    same = all(one.bytes == shortest for one in of_all)  # also the last block, which is shorter
    count = -(-shortest // size) if same else shortest // size
    agree = np.ones(count, np.bool_)
    for one in of_all:
        agree &= one.crcs[:count] == first.crcs[:count]
    return np.flatnonzero(agree)


def digests(data: Bytes, block_bytes: int, blocks: Numbers) -> bytes:
    """One after the other."""
    cut = (data[block_bytes * at : block_bytes * (at + 1)] for at in blocks.tolist())
    return b"".join(hashlib.sha256(block.data).digest()[:DIGEST_BYTES] for block in cut)


def ranges(told: Sequence[bytes], blocks: Numbers, block_bytes: int, count: int) -> tuple[Range, ...]:
    """Of which all have told the same digest; of many ranges the longest. `count`: bytes of the shortest
    snapshot. Raises ProtocolError."""
    if any(len(words) != DIGEST_BYTES * len(blocks) for words in told):
        raise ProtocolError("a keeper's digests are not of the blocks that all have agreed on")
    rows = [np.frombuffer(words, np.uint8).reshape(-1, DIGEST_BYTES) for words in told]
    same = blocks[np.logical_and.reduce([(one == rows[0]).all(axis=1) for one in rows])]
    if not len(same):
        return ()
    runs = np.split(same, np.flatnonzero(np.diff(same) != 1) + 1)
    longest = sorted(runs, key=len, reverse=True)[: limits.RANGES_MAX]
    found = [(int(run[0]) * block_bytes, min((int(run[-1]) + 1) * block_bytes, count)) for run in longest]
    return tuple(Range(first, last) for first, last in sorted(found))
