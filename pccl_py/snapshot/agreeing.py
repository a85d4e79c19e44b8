"""What keepers tell each other before they code: whether they are ready, the tables, and what all have alike.

One exchange, where nothing is alike; else one more, of digests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..communicator import Communicator
from ..errors import ProtocolError
from . import identical, limits
from .generation import Generation, Identical
from .identical import Checksums
from .rounds import known_from_all, to_all
from .share import Share

DIGESTS_S = 600.0  # a core makes those of 1.5 GiB in a second


@dataclass(frozen=True, slots=True)
class Told:
    """`checksums`: by keeper, of each of its lanes. `all_are_roomy`: with memory for all parities already.
    `all_have_before`: what was coded last, whole, and that is the same generation."""

    checksums: list[list[Checksums]]
    all_are_roomy: bool
    all_have_before: bool


def exchanged(
    comm: Communicator,
    generation: Generation,
    share: Share | None,
    ranks: Mapping[str, int],
    *,
    roomy: bool,
    before: int,
) -> Told | None:
    """All get the tables of all, in `share`: a lost trainer's is nowhere else. `before`: the number of the
    generation before, 0: it is not whole here. None: somebody (`share` None: this one) is not ready. How many
    bytes come of whom is known, so one exchange does for all."""
    shares = [one for group in generation.groups for one in group.shares]
    sizes = [0] * len(ranks)
    for one in shares:
        sizes[ranks[one.keeper]] = 1 + sum(
            lane.table_bytes + identical.words_bytes(lane) for lane in one.lanes
        )
    if max(sizes) > limits.TABLE_BYTES_MAX:
        raise ProtocolError(f"a keeper has tables of {max(sizes)} bytes, more than there may be")
    own = None if share is None else _own_words(share, roomy | _mark(before) << 1)
    by_rank = known_from_all(comm, own, sizes)
    if by_rank is None or share is None:
        return None
    checksums = []
    for one in shares:
        words, at = by_rank[ranks[one.keeper]], 1
        for lane in one.lanes:
            share.tables[lane.trainer] = words[at : at + lane.table_bytes]
            at += lane.table_bytes
        checksums.append(identical.checksums(one.lanes, words[at:]))
    flags = [words[0] for words in by_rank]
    marks = {one >> 1 for one in flags}
    return Told(checksums, all(one & 1 for one in flags), len(marks) == 1 and marks != {0})


def _mark(number: int) -> int:
    """What fits beside another flag."""
    return 1 + number % 127 if number else 0


def _own_words(share: Share, flags: int) -> bytes:
    tables = [share.tables[lane.trainer] for lane in share.lanes]
    sums = [identical.own_words(lane, words) for lane, words in zip(share.lanes, tables, strict=True)]
    return bytes([flags]) + b"".join(tables + sums)


def identical_in(comm: Communicator, share: Share, told: Told) -> tuple[Identical, ...]:
    """By lane, of those that all keepers have: else what is identical could be lost with fewer of them than
    what is coded."""
    every = min(len(lanes) for lanes in told.checksums)
    of_lanes = [[lanes[lane] for lanes in told.checksums] for lane in range(every)]
    blocks = [identical.candidates(sums) for sums in of_lanes]
    if not any(map(len, blocks)):
        return ()
    own = zip(share.lanes, share.data, blocks, strict=False)
    mine = [identical.digests(data[: lane.bytes], numbers) for lane, data, numbers in own]
    said = to_all(comm, b"".join(mine), limits.TABLE_BYTES_MAX, DIGESTS_S)
    found, at = [], 0
    for sums, numbers in zip(of_lanes, blocks, strict=True):
        end = at + identical.DIGEST_BYTES * len(numbers)
        shortest = min(one.bytes for one in sums)
        found.append(Identical(identical.ranges([words[at:end] for words in said], numbers, shortest)))
        at = end
    return tuple(found) if any(one.ranges for one in found) else ()
