"""Coding what has changed since the generation before. What that is the keepers find out together: they know
each other's checksums of both; of blocks whose checksums agree each compares the bytes that it has, and it
checks the old bytes of the others, since the old parities are of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..communicator import Communicator
from ..values.limits import BLOCK_BYTES
from . import limits, native, unchanged
from .identical import Checksums
from .rounds import to_all
from .share import Bytes, Share
from .unchanged import Changed, Flags

COMPARE_S = 600.0
ANEW_EVERY = 16  # generations: what went wrong in a parity's memory does not stay for ever


@dataclass(frozen=True, slots=True)
class Before:
    """What was coded last. `checksums`: by keeper, of each of its lanes. `since_anew`: how many generations
    ago all of it was coded."""

    share: Share
    checksums: list[list[Checksums]]
    since_anew: int


@dataclass(frozen=True, slots=True)
class Differences:
    """`changed`: by lane. `unchanged`: bytes of this keeper's snapshots that are as they were, by trainer."""

    before: Share
    changed: list[Changed]
    unchanged: dict[str, int]


def agreed(
    comm: Communicator,
    before: Before,
    share: Share,
    checksums: list[list[Checksums]],
    ranks: Mapping[str, int],
) -> Differences | None:
    """All take part. None: all is coded anew."""
    generation = share.generation
    if not unchanged.lie_alike(before.share.generation, generation):
        return None
    if any(
        one.crcs is None and one.bytes
        for of_all in (before.checksums, checksums)
        for own in of_all
        for one in own
    ):
        return None  # of blocks that nobody knows anything of, nobody knows whether they have changed
    places = [(g, s) for g, group in enumerate(generation.groups) for s in range(len(group.shares))]
    same = [
        [unchanged.may_be_same(old, new) for old, new in zip(olds, news, strict=True)]
        for olds, news in zip(before.checksums, checksums, strict=True)
    ]
    if not _is_worth_it(share, _by_lane(generation.lanes, places, same), ranks):
        return None
    keepers = [one.keeper for group in generation.groups for one in group.shares]
    own = next(at for at, keeper in enumerate(keepers) if ranks[keeper] == comm.rank)
    said = to_all(
        comm, _compared(before, share, same[own], before.checksums[own]), limits.TABLE_BYTES_MAX, COMPARE_S
    )
    by_keeper = [said[ranks[keeper]] for keeper in keepers]
    sizes = [sum(map(len, of_lanes)) for of_lanes in same]
    if any(len(words) != size for words, size in zip(by_keeper, sizes, strict=True)):
        return None  # the old bytes of one of them are not what they were
    same = [_read(words, of_lanes) for words, of_lanes in zip(by_keeper, same, strict=True)]
    changed = _by_lane(generation.lanes, places, same)
    if not _is_worth_it(share, changed, ranks):
        return None
    left = {
        lane.trainer: _bytes_of(flags, lane.bytes) for lane, flags in zip(share.lanes, same[own], strict=True)
    }
    return Differences(before.share, changed, left)


def _by_lane(lanes: int, places: list[tuple[int, int]], same: list[list[Flags]]) -> list[Changed]:
    return [
        {place: ~flags[lane] for place, flags in zip(places, same, strict=True) if lane < len(flags)}
        for lane in range(lanes)
    ]


def _is_worth_it(share: Share, changed: list[Changed], ranks: Mapping[str, int]) -> bool:
    if all(flags.all() for one in changed for flags in one.values()):
        return False  # as with most trainings
    generation = share.generation
    parts = [unchanged.saved(generation, at, one, ranks, BLOCK_BYTES) for at, one in enumerate(changed)]
    widths = [generation.width(at) for at in range(generation.lanes)]
    whole = sum(widths)
    return (
        whole > 0 and sum(p * w for p, w in zip(parts, widths, strict=True)) / whole >= unchanged.LEAST_SAVED
    )


def _compared(before: Before, share: Share, same: list[Flags], crcs: list[Checksums]) -> bytes:
    """A byte for each block: whether it is the same, bit for bit. Nothing: old bytes are damaged."""
    said = []
    for lane, flags in enumerate(same):
        old, new = before.share.data[lane], share.data[lane]
        found = flags.copy()
        for block in range(len(flags)):
            part = slice(BLOCK_BYTES * block, min(BLOCK_BYTES * (block + 1), share.lanes[lane].bytes))
            if flags[block] and _are_equal(old[part], new[part]):
                continue
            found[block] = False
            known = crcs[lane].crcs
            if known is None or native.crc32(old[part].data) != known[block]:
                return b""
        said.append(found.tobytes())
    return b"".join(said)


def _are_equal(a: Bytes, b: Bytes) -> bool:
    whole = len(a) // 8 * 8  # eight at a time: several times as fast
    return np.array_equal(a[:whole].view(np.uint64), b[:whole].view(np.uint64)) and np.array_equal(
        a[whole:], b[whole:]
    )


def _read(words: bytes, like: list[Flags]) -> list[Flags]:
    """By lane."""
    if not like:
        return []  # a keeper whose trainer has taken nothing yet
    ends = np.cumsum([len(flags) for flags in like])[:-1]
    return [part != 0 for part in np.split(np.frombuffer(words, np.uint8), ends)]


def _bytes_of(flags: Flags, count: int) -> int:
    """Of the blocks of a snapshot of so many bytes."""
    return sum(min(BLOCK_BYTES, count - BLOCK_BYTES * int(block)) for block in np.flatnonzero(flags))
