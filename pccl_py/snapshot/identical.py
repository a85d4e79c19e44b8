"""What all snapshots of a lane have at the same place, bit for bit, needs no parity: any keeper has it, and
gives it to who lost it. Replicas of a model; not what is each peer's own.

Found by block: keepers tell each other the checksums that the blocks were taken with; of those that agree
each makes a digest of its own bytes, which nothing else has by chance; where all digests agree, the bytes do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import ProtocolError
from ..values.limits import BLOCK_BYTES
from . import limits, table
from .generation import Lane, Range
from .share import Bytes

DIGEST_BYTES = 16  # of SHA-256: two different blocks agree with 2**-128
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Checksums:
    """Of the blocks of a snapshot of `bytes`. None: they are not known, or not of BLOCK_BYTES each."""

    bytes: int
    crcs: npt.NDArray[np.uint32] | None


def words_bytes(lane: Lane) -> int:
    return 1 + 4 * blocks_of(lane.bytes)


def blocks_of(count: int) -> int:
    return -(-count // BLOCK_BYTES)


def own_words(lane: Lane, words: bytes) -> bytes:
    """By the lane's table: whether they are known, then the CRC-32 of each block."""
    crcs = table.checksums(words, BLOCK_BYTES)
    if crcs is None or len(crcs) != 4 * blocks_of(lane.bytes):
        return bytes(words_bytes(lane))
    return b"\1" + crcs


def checksums(lanes: Sequence[Lane], words: bytes) -> list[Checksums]:
    """Of a keeper's lanes, from anybody's bytes. Raises ProtocolError."""
    if len(words) != sum(map(words_bytes, lanes)):
        raise ProtocolError("a keeper's checksums are not those of its snapshots")
    found, at = [], 0
    for lane in lanes:
        end = at + words_bytes(lane)
        crcs = np.frombuffer(words[at + 1 : end], "<u4") if words[at] else None
        found.append(Checksums(lane.bytes, crcs))
        at = end
    return found


def candidates(of_all: Sequence[Checksums]) -> Numbers:
    """Blocks that may be identical in all snapshots of a lane: of the same size, with the same checksum."""
    known = [one.crcs for one in of_all if one.crcs is not None]
    if len(known) < max(len(of_all), 2):
        return np.empty(0, np.int64)
    shortest = min(one.bytes for one in of_all)
    same = all(one.bytes == shortest for one in of_all)  # also the last block, which is shorter
    count = blocks_of(shortest) if same else shortest // BLOCK_BYTES
    agree = np.ones(count, np.bool_)
    for crcs in known:
        agree &= crcs[:count] == known[0][:count]
    return np.flatnonzero(agree)


def digests(data: Bytes, blocks: Numbers) -> bytes:
    """One after the other."""
    cut = (data[BLOCK_BYTES * at : BLOCK_BYTES * (at + 1)] for at in blocks.tolist())
    return b"".join(hashlib.sha256(block.data).digest()[:DIGEST_BYTES] for block in cut)


def ranges(told: Sequence[bytes], blocks: Numbers, count: int) -> tuple[Range, ...]:
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
    found = [(int(run[0]) * BLOCK_BYTES, min((int(run[-1]) + 1) * BLOCK_BYTES, count)) for run in longest]
    return tuple(Range(first, last) for first, last in sorted(found))
