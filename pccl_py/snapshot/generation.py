"""A generation: which snapshots of which keepers are coded together, and where each of their blocks lies.
Pure, and the same at all keepers of a run.

Each keeper has a slot in a code group. The trainers of a keeper are its lanes: lane 0 of all keepers is coded
together, then lane 1. What all snapshots of a lane have alike is left out; each area between is cut into k =
n - m blocks of its `width`, the last ones filled up with zeros; rotated stripes give each keeper m parities,
of that width too, of others' blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field

from ..coded_calls import CodedSum, CodedTerm
from ..erasure.placement import Stripes, code_groups
from ..erasure.reed_solomon import ReedSolomon
from ..errors import DamagedError, ProtocolError
from ..values import bounded_json
from . import bounded, limits

KEEPERS_MAX = 4096
GROUP = 8  # keepers of a code group, where there are so many
WIDTH_UNIT = 64  # kernels are fastest on such blocks
_DESCRIPTION_BYTES_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class Lane:
    """A trainer's snapshot; `crc32` and `table_bytes` are those of its table."""

    trainer: str = bounded.name()
    step: int = bounded.taken()
    bytes: int = bounded.byte_count()
    table_bytes: int = bounded.whole(0, limits.TABLE_BYTES_MAX)
    crc32: int = bounded.whole(0, 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Share:
    """What one keeper gives: it has this slot of its group."""

    keeper: str = bounded.name()
    domain: str = bounded.name()
    lanes: tuple[Lane, ...] = bounded.listed(Lane, limits.TRAINERS_MAX)


@dataclass(frozen=True, slots=True)
class Group:
    shares: tuple[Share, ...] = bounded.listed(Share, KEEPERS_MAX)


@dataclass(frozen=True, slots=True)
class Missed:
    """A trainer whose snapshot was lost with too many keepers, before this generation: for who asks later."""

    trainer: str = bounded.name()
    why: str = bounded.text()


@dataclass(frozen=True, slots=True)
class Place:
    """Of a snapshot."""

    group: int
    slot: int
    lane: int


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes [first, last) of all snapshots of a lane."""

    first: int = bounded.byte_count()
    last: int = bounded.byte_count()


@dataclass(frozen=True, slots=True)
class Identical:
    """What all snapshots of a lane have, bit for bit: ranges apart from each other, rising."""

    ranges: tuple[Range, ...] = bounded.listed(Range, limits.RANGES_MAX)


@dataclass(frozen=True, slots=True)
class Area:
    """Bytes [first, last) that are coded. `at`: where its part of a parity of the lane begins."""

    first: int
    last: int
    width: int
    at: int


@dataclass(frozen=True, slots=True)
class Generation:
    """`number` rises; `parity`: as asked for, less where a group has no more than that many keepers.
    `identical`: by lane; of the lanes behind nothing is."""

    number: int = bounded.whole(1, 1 << 53)
    parity: int = bounded.whole(0, 255)
    groups: tuple[Group, ...] = bounded.listed(Group, KEEPERS_MAX)
    missed: tuple[Missed, ...] = bounded.listed(Missed, KEEPERS_MAX)
    identical: tuple[Identical, ...] = field(
        default=(), metadata={"of": Identical, "most": limits.TRAINERS_MAX}
    )

    def encode(self) -> bytes:
        return bounded_json.dumps(asdict(self))

    @property
    def lanes(self) -> int:
        return max((len(share.lanes) for group in self.groups for share in group.shares), default=0)

    @property
    def keepers(self) -> set[str]:
        return {share.keeper for group in self.groups for share in group.shares}

    def places(self) -> dict[str, tuple[Place, Lane]]:
        """Where the snapshot of each trainer is."""
        return {
            lane.trainer: (Place(g, s, at), lane)
            for g, group in enumerate(self.groups)
            for s, share in enumerate(group.shares)
            for at, lane in enumerate(share.lanes)
        }

    def share_of(self, keeper: str) -> tuple[int, int, Share] | None:
        """Its group, its slot, and what it gives."""
        for g, group in enumerate(self.groups):
            for s, share in enumerate(group.shares):
                if share.keeper == keeper:
                    return g, s, share
        return None

    def code(self, group: int) -> tuple[int, int]:
        """k and m of a group; m 0: it has one keeper, and no parity."""
        n = len(self.groups[group].shares)
        m = min(self.parity, n - 1)
        return n - m, m

    def identical_of(self, lane: int) -> tuple[Range, ...]:
        return self.identical[lane].ranges if lane < len(self.identical) else ()

    def identical_bytes(self, lane: int) -> int:
        return sum(one.last - one.first for one in self.identical_of(lane))

    def areas(self, lane: int) -> list[Area]:
        """What is coded of that lane, in all groups."""
        lengths = self._lengths(lane)
        longest = max((length for length, _ in lengths), default=0)
        found, first, at = [], 0, 0
        for one in (*self.identical_of(lane), Range(longest, longest)):
            widest = max((-(-(min(length, one.first) - first) // k) for length, k in lengths), default=0)
            width = -(-max(widest, 0) // WIDTH_UNIT) * WIDTH_UNIT
            if width:
                found.append(Area(first, one.first, width, at))
            first, at = one.last, at + width
        return found

    def width(self, lane: int) -> int:
        """Bytes of a parity of that lane."""
        return sum(area.width for area in self.areas(lane))

    def _lengths(self, lane: int) -> list[tuple[int, int]]:
        """Of the snapshots of that lane, each with the k of its group."""
        return [
            (share.lanes[lane].bytes, self.code(number)[0])
            for number, group in enumerate(self.groups)
            for share in group.shares
            if lane < len(share.lanes)
        ]

    def parities(self, lane: int, ranks: Mapping[str, int]) -> list[CodedSum]:
        """Of all groups, for one operation. A keeper's outputs come in the order of `parity_rows`."""
        return [
            CodedSum(
                ranks[group.shares[stripes.slot_of(stripe, stripes.k + row)].keeper],
                tuple(
                    CodedTerm(
                        ranks[group.shares[stripes.slot_of(stripe, block)].keeper],
                        block,
                        code.coefficient(row, block),
                    )
                    for block in range(stripes.k)
                ),
            )
            for number, group in enumerate(self.groups)
            if self.code(number)[1]
            for stripes, code in [(Stripes(sum(self.code(number)), self.code(number)[1]), self._rs(number))]
            for stripe in range(stripes.n)
            for row in range(stripes.m)
        ]

    def parity_rows(self, group: int, slot: int) -> list[int]:
        """Which parity each output of a keeper is, in the order in which `parities` has them."""
        _, m = self.code(group)
        if not m:
            return []
        stripes = Stripes(sum(self.code(group)), m)
        return [
            row
            for stripe in range(stripes.n)
            for row in range(m)
            if stripes.slot_of(stripe, stripes.k + row) == slot
        ]

    def coded_areas(self, place: Place, lane: Lane) -> list[Area]:
        """Of that snapshot."""
        return [area for area in self.areas(place.lane) if area.first < lane.bytes]

    def holders(self, place: Place, present: Mapping[str, int]) -> list[int]:
        """Ranks of keepers that have what is identical in a lost snapshot."""
        lost = self.groups[place.group].shares[place.slot].keeper
        return [
            present[share.keeper]
            for group in self.groups
            for share in group.shares
            if share.keeper in present and share.keeper != lost and place.lane < len(share.lanes)
        ]

    def can_rescue(self, place: Place, lane: Lane, present: Mapping[str, int]) -> bool:
        if self.identical_of(place.lane) and not self.coded_areas(place, lane):
            return bool(self.holders(place, present))
        return self.rescue(place, present, 0) is not None

    def rescue(
        self, place: Place, present: Mapping[str, int], owner: int, first: int = 0
    ) -> list[CodedSum] | None:
        """The blocks of an area of a lost snapshot for the keeper with rank `owner`, in their order, from
        those of `present` (rank by keeper), each of which gives its k blocks of data and its m parities.

        None: they are too few.
        """
        k, m = self.code(place.group)
        if not m:
            return None
        stripes, code = Stripes(k + m, m), self._rs(place.group)
        shares = self.groups[place.group].shares
        here = {slot: present[share.keeper] for slot, share in enumerate(shares) if share.keeper in present}
        here.pop(place.slot, None)
        if len(here) < k:
            return None
        sums = []
        for block in range(first, k):
            stripe = stripes.stripe_of(place.slot, block)
            left = [one for one in range(stripes.n) if stripes.slot_of(stripe, one) in here]
            row = code.decode_row(left, block)
            terms = (CodedTerm(here[stripes.slot_of(stripe, one)], one, c) for one, c in row.items() if c)
            sums.append(CodedSum(owner, tuple(terms)))
        return sums

    def losses(self, missing: Collection[str] = ()) -> int:
        """Failure domains that may be lost at once, whichever they are, without losing a snapshot, where the
        shares of these keepers are lost already."""
        left = {share.domain for g in self.groups for share in g.shares if share.keeper not in missing}
        least = min(max(len(left) - 1, 0), KEEPERS_MAX)
        for number, group in enumerate(self.groups):
            if self._all_is_identical(group):
                continue
            _, m = self.code(number)
            counts: dict[str, int] = {}
            lost = tolerated = 0
            for share in group.shares:
                if share.keeper in missing:
                    lost += 1
                else:
                    counts[share.domain] = counts.get(share.domain, 0) + 1
            for count in sorted(counts.values(), reverse=True):
                lost += count
                if lost > m:
                    break
                tolerated += 1
            least = min(least, tolerated)
        return least

    def _all_is_identical(self, group: Group) -> bool:
        lanes = [one for share in group.shares for one in enumerate(share.lanes)]
        return bool(lanes) and all(self.identical_bytes(at) >= lane.bytes > 0 for at, lane in lanes)

    def _rs(self, group: int) -> ReedSolomon:
        return ReedSolomon(*self.code(group))


def arranged(number: int, parity: int, shares: list[Share], missed: tuple[Missed, ...] = ()) -> Generation:
    """Groups across failure domains."""
    if not shares:
        return Generation(number, parity, (), missed)
    size = max(min(len(shares), GROUP), min(parity + 1, len(shares)))
    groups = code_groups([share.domain for share in shares], size)
    arranged_groups = tuple(Group(tuple(shares[at] for at in group)) for group in groups)
    return Generation(number, parity, arranged_groups, missed)


def decode(data: bytes) -> Generation:
    """From anybody's bytes. Raises ProtocolError."""
    what = "what is coded together"
    try:
        value = bounded_json.loads(data, what=what, bytes_max=_DESCRIPTION_BYTES_MAX, depth_max=8)
    except DamagedError as error:
        raise ProtocolError(str(error)) from None
    found: Generation = bounded.read(Generation, value)
    keepers = [share.keeper for group in found.groups for share in group.shares]
    trainers = [lane.trainer for g in found.groups for share in g.shares for lane in share.lanes]
    if len(set(keepers)) != len(keepers) or len(set(trainers)) != len(trainers):
        bounded.refuse("a keeper or a trainer is coded twice")
    if any(not 0 < len(group.shares) <= 256 for group in found.groups):
        bounded.refuse("a code group has no keepers, or more than 256")
    _check_identical(found)
    return found


def _check_identical(found: Generation) -> None:
    """All keepers have it, and it lies within the bytes of each."""
    shares = [share for group in found.groups for share in group.shares]
    for lane, one in enumerate(found.identical):
        if one.ranges and any(lane >= len(share.lanes) for share in shares):
            bounded.refuse("bytes are identical in snapshots that are not there")
        ends = [0] + [end for part in one.ranges for end in (part.first, part.last)]
        shortest = min((share.lanes[lane].bytes for share in shares), default=0) if one.ranges else 0
        if ends != sorted(ends) or any(part.first == part.last for part in one.ranges) or ends[-1] > shortest:
            bounded.refuse("ranges of identical bytes overlap, or lie beyond the snapshots")
