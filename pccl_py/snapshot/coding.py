"""Coding a generation, and what this keeper holds of the newest one. On the member's thread.

First all find out what they have alike: that is not coded. Then in two steps: parities are made beside those
of the generation before; only when all keepers say that theirs are placed, and that what they are made of was
not written over meanwhile, do they count.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..communicator import Communicator
from ..errors import ProtocolError
from . import identical, limits, memory, messages
from .calls import Calls
from .generation import Area, Generation, Identical, Lane, Range, arranged
from .generation import Share as Given
from .identical import Checksums
from .protection import Protection
from .rooms import Rooms
from .rounds import all_say_yes, to_all
from .share import Bytes, Mapped, Share
from .standing import Standing

logger = logging.getLogger("pccl_py.keeper")
OPERATION_S = 600.0
READY = b"\1"  # before the words of a keeper that has what is to be coded


class Coding:
    """`known`: the newest complete generation of the run, also where this keeper has no share of it."""

    def __init__(self, name: str, said: messages.Protect, protection: Protection, calls: Calls) -> None:
        self.name, self.said, self.protection, self.calls = name, said, protection, calls
        self.known: Generation | None = None
        self.share: Share | None = None
        self.mapped = Mapped()
        self.seconds = 0.0  # that the last one took
        self._rooms = Rooms()
        # Rooms that keepers and buffers like these need: most rounds are like the one before.
        self._expected: tuple[object, list[int]] = (None, [])

    def intact(self) -> int:
        """The number of the generation whose share is whole here, 0: none. On the loop."""
        share = self.share
        if share is None or not self.protection.intact(share.lanes):
            return 0
        return share.generation.number

    def described(self) -> bytes:
        assert self.known is not None
        return self.known.encode()

    def learn(self, told: Generation) -> None:
        if self.known is None or told.number > self.known.number:
            self.known, self.share = told, None

    def encode(self, comm: Communicator, generation: Generation, ranks: Mapping[str, int]) -> bool:
        """Whether it is complete. `ranks`: of all its keepers. Raises what collectives raise: nothing has
        changed then."""
        begun = time.perf_counter()
        share = self._prepared(generation)
        by_rank = self._exchange_tables(comm, share)
        if by_rank is None or share is None:
            return False
        checksums = self._checksums(share, by_rank, ranks)
        generation = share.generation = replace(
            generation, identical=self._identical(comm, share, checksums, ranks)
        )
        if not all_say_yes(comm, self._make_room(share)):
            return False
        for lane in range(generation.lanes):
            self._code_lane(comm, share, lane, ranks)
        lanes = share.lanes
        right = self.calls.ask(lambda: self.protection.intact(lanes))
        if not all_say_yes(comm, right):
            return False
        self.known, self.share = generation, share
        self._rooms.count()
        self.mapped.keep_only(share.data, self.calls.ask(self.protection.files))
        places = generation.places()
        steps = {trainer: lane.step for trainer, (_, lane) in places.items()}
        identical = {trainer: generation.identical_bytes(at.lane) for trainer, (at, _) in places.items()}
        losses = generation.losses()
        self.calls.ask(lambda: self.protection.complete(steps, losses, identical))
        self.seconds = time.perf_counter() - begun
        return True

    def _prepared(self, generation: Generation) -> Share | None:
        """None: what is to be coded is not here any more."""
        found = generation.share_of(self.name)
        lanes = () if found is None else found[2].lanes
        data, tables = [], {}
        for lane in lanes:
            held = self.calls.ask(lambda lane=lane: self.protection.memory(lane))  # type: ignore[misc]
            if held is None:
                return None
            data.append(self.mapped.view(held))
            tables[lane.trainer] = held.table
        return Share(generation, lanes, data, [], tables)

    def _make_room(self, share: Share) -> bool:
        """For parities."""
        generation = share.generation
        found = generation.share_of(self.name)
        m = 0 if found is None else generation.code(found[0])[1]
        sizes = [(m, generation.width(lane)) for lane in range(generation.lanes)]
        try:
            share.parities = self._rooms.take(sizes)
        except OSError:
            self._blame(sum(rows * width for rows, width in sizes), m)
            return False
        return True

    def _blame(self, needed: int, m: int) -> None:
        """Trainers are told why nothing is coded."""
        why = memory.exhausted(needed, memory.available(), f"what {m} parities take beside those before")
        logger.warning("%s", why)
        self.calls.later(lambda: self.protection.blame(why))

    def expect(self, said: Sequence[Standing], capacities: Sequence[int]) -> bool:
        """Makes memory for parities, by steps; whether something is left to do. As many as last time, where
        nothing has changed; else of snapshots as large as the trainers' buffers here (`capacities`)."""
        share = self.share
        exactly = share is not None and self._is_as_before(share, said, capacities)
        number = share.generation.number if share is not None and exactly else 0
        now = (number, [(one.keeper, one.domain, one.parity) for one in said], capacities)
        if now != self._expected[0]:
            known = share.generation if share is not None and exactly else self._foreseen(said, capacities)
            self._expected = (now, [] if known is None else self._sizes(known))
        sizes = self._expected[1]
        return (bool(sizes) or exactly) and self._rooms.expect(sizes, exactly=exactly)

    @staticmethod
    def _is_as_before(share: Share, said: Sequence[Standing], capacities: Sequence[int]) -> bool:
        """The same keepers, and buffers as its snapshots need."""
        needed = sorted(memory.whole_units(lane.bytes) for lane in share.lanes)
        return sorted(capacities) == needed and share.generation.keepers == {one.keeper for one in said}

    @staticmethod
    def _foreseen(said: Sequence[Standing], capacities: Sequence[int]) -> Generation | None:
        """With snapshots as large as the buffers."""
        lanes = tuple(Lane(str(at), 0, size, 0, 0) for at, size in enumerate(capacities))
        shares = [Given(one.keeper, one.domain, lanes) for one in said]
        if not lanes or len(said) < 2:
            return None
        return arranged(1, max(one.parity for one in said), shares)

    def _sizes(self, generation: Generation) -> list[int]:
        """Of this keeper's parities, by lane."""
        found = generation.share_of(self.name)
        assert found is not None
        m = generation.code(found[0])[1]
        sizes = (m * generation.width(lane) for lane in range(generation.lanes))
        return [memory.whole_units(size) for size in sizes if size]

    def _exchange_tables(self, comm: Communicator, share: Share | None) -> list[bytes] | None:
        """All get those of all, since a lost trainer's is nowhere else, and the checksums in them, by rank.
        None: somebody (`share` None: this one) is not ready. One exchange does for both."""
        words = b""
        if share is not None:
            tables = [share.tables[lane.trainer] for lane in share.lanes]
            sums = [identical.own_words(lane, words) for lane, words in zip(share.lanes, tables, strict=True)]
            words = b"".join((READY, *tables, *sums))
        by_rank = to_all(comm, words, limits.TABLE_BYTES_MAX)
        return by_rank if all(said.startswith(READY) for said in by_rank) else None

    def _checksums(
        self, share: Share, by_rank: Sequence[bytes], ranks: Mapping[str, int]
    ) -> dict[str, list[Checksums]]:
        """By keeper and lane; the tables come to the share."""
        checksums = {}
        for group in share.generation.groups:
            for one in group.shares:
                words, at = by_rank[ranks[one.keeper]], len(READY)
                if len(words) < at + sum(lane.table_bytes for lane in one.lanes):
                    raise ProtocolError(f"the tables of keeper {one.keeper} are not what it said")
                for lane in one.lanes:
                    share.tables[lane.trainer] = words[at : at + lane.table_bytes]
                    at += lane.table_bytes
                checksums[one.keeper] = identical.checksums(one.lanes, words[at:])
        return checksums

    def _identical(
        self,
        comm: Communicator,
        share: Share,
        checksums: Mapping[str, Sequence[Checksums]],
        ranks: Mapping[str, int],
    ) -> tuple[Identical, ...]:
        """Of lanes that all keepers have: else what is identical could be lost with fewer of them than what
        is coded."""
        every = min(len(lanes) for lanes in checksums.values())
        of_lanes = [[lanes[lane] for lanes in checksums.values()] for lane in range(every)]
        blocks = [identical.candidates(sums) for sums in of_lanes]
        if not any(map(len, blocks)):
            return ()
        mine = [
            identical.digests(share.data[lane], of_lanes[lane][0].block_bytes, blocks[lane])
            for lane in range(every)
        ]
        told = to_all(comm, b"".join(mine), limits.TABLE_BYTES_MAX, OPERATION_S)
        found, at = [], 0
        for sums, numbers in zip(of_lanes, blocks, strict=True):
            end = at + identical.DIGEST_BYTES * len(numbers)
            shortest = min(one.bytes for one in sums)
            words = [one[at:end] for one in told]
            found.append(Identical(identical.ranges(words, numbers, sums[0].block_bytes, shortest)))
            at = end
        return tuple(found)

    def _code_lane(self, comm: Communicator, share: Share, lane: int, ranks: Mapping[str, int]) -> None:
        generation = share.generation
        found = generation.share_of(self.name)
        assert found is not None
        group, slot, _ = found
        k, m = generation.code(group)
        sums, rows = generation.parities(lane, ranks), generation.parity_rows(group, slot)
        for area in generation.areas(lane) if sums else []:
            blocks, parities = share.blocks(lane, k, area), share.rows(lane, area)
            comm.coded_reduce_scatter(
                blocks[:k] if m else [],
                [parities[row] for row in rows],
                sums,
                block_bytes=area.width,
                rate_limit=self.said.rate or None,
                timeout=OPERATION_S,
            )

    def blocks_of(self, lane: int, group: int, area: Area) -> list[Bytes]:
        """What this keeper gives to bring back an area of a snapshot of that lane and group."""
        share = self.share
        found = None if share is None else share.generation.share_of(self.name)
        if share is None or found is None or found[0] != group:
            return []
        return share.blocks(lane, share.generation.code(group)[0], area)

    def bytes_of(self, lane: int, part: Range) -> Bytes:
        """Of this keeper's own snapshot of that lane."""
        assert self.share is not None
        return self.share.data[lane][part.first : part.last]
