"""Coding a generation, and what this keeper holds of the newest one. On the member's thread.

First all find out what they have alike: that is not coded; and what is as it was in the generation before:
that is not sent again. Then in two steps: parities are made beside those
of the generation before; only when all keepers say that theirs are placed, and that what they are made of was
not written over meanwhile, do they count.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..communicator import Communicator
from . import agreeing, differences, memory, messages
from .calls import Calls
from .differences import ANEW_EVERY, Before, Differences
from .generation import Area, Generation, Lane, Range, arranged
from .generation import Share as Given
from .lane_coder import LaneCoder
from .protection import Protection
from .rooms import Rooms
from .rounds import all_say_yes
from .share import Bytes, Mapped, Share
from .standing import Standing
from .unchanged import lie_alike

logger = logging.getLogger("pccl_py.keeper")
OPERATION_S = 600.0
AGAIN_S = 0.05  # after one that came to nothing
# At most, where memory is short: it stays so for a while, and all that is alike is hashed each time.
ROOM_AGAIN_S = 2.0


class Coding:
    """`known`: the newest complete generation of the run, also where this keeper has no share of it."""

    def __init__(self, name: str, said: messages.Protect, protection: Protection, calls: Calls) -> None:
        self.name, self.said, self.protection, self.calls = name, said, protection, calls
        self.known: Generation | None = None
        self.share: Share | None = None
        self.mapped = Mapped()
        self.seconds = 0.0  # that the last one took
        self.pause_s = AGAIN_S  # before the next one, after one that came to nothing
        self._rooms = Rooms()
        self._before: Before | None = None
        # Rooms that keepers and buffers like these need: most rounds are like the one before.
        self._expected: tuple[Sequence[object], Sequence[int], Share | None, list[int], bool]
        self._expected = ((), (), None, [], False)

    @property
    def parity_bytes(self) -> int:
        """Of memory for parities."""
        return self._rooms.bytes

    def intact(self) -> int:
        """The number of the generation whose share is whole here, 0: none. On the loop."""
        share = self.share
        if share is None or not self.protection.intact(share.lanes):
            return 0
        return share.generation.number

    def lose(self, lane: Lane) -> None:
        """It is in other memory now than what this share looks at."""
        if self.share is not None and lane in self.share.lanes:
            self.share = self._before = None

    def described(self) -> bytes:
        assert self.known is not None
        return self.known.encode()

    def learn(self, told: Generation) -> None:
        if self.known is None or told.number > self.known.number:
            self.known, self.share = told, None
            self._before = None

    def encode(self, comm: Communicator, generation: Generation, ranks: Mapping[str, int]) -> bool:
        """Whether it is complete. `ranks`: of all its keepers. Raises what collectives raise: nothing has
        changed then."""
        begun = time.perf_counter()
        share = self._prepared(generation)
        roomy = share is not None and self._is_roomy(share)
        told = agreeing.exchanged(
            comm, generation, share, ranks, roomy=roomy, before=self._number_before(generation)
        )
        if told is None or share is None:
            return False
        identical = agreeing.identical_in(comm, share, told)
        if identical or not told.all_are_roomy:
            generation = share.generation = replace(generation, identical=identical)
            if not all_say_yes(comm, self._make_room(share)):
                self.pause_s = min(2 * self.pause_s, ROOM_AGAIN_S)
                return False
        self.pause_s = AGAIN_S
        changes = self._code(comm, share, ranks, told)
        lanes = share.lanes if changes is None else (*share.lanes, *changes.before.lanes)
        right = self.calls.ask(lambda: self.protection.intact(lanes))
        if not all_say_yes(comm, right):
            return False
        since_anew = 0 if changes is None or self._before is None else self._before.since_anew + 1
        self._before = Before(share, told.checksums, since_anew)
        self.known, self.share = generation, share
        self._rooms.count()
        self.mapped.keep_only(share.data, self.calls.ask(self.protection.files))
        places = generation.places()
        steps = {trainer: lane.step for trainer, (_, lane) in places.items()}
        alike = {trainer: generation.identical_bytes(at.lane) for trainer, (at, _) in places.items()}
        losses = generation.losses()
        unchanged = {} if changes is None else changes.unchanged
        self.calls.ask(lambda: self.protection.complete(steps, losses, alike, unchanged))
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

    def _is_roomy(self, share: Share) -> bool:
        """Has room for all parities already: not where it would be too much, since part of the last snapshots
        was identical, or there may not be as much."""
        before = self.known
        return not (before is not None and before.identical) and self._make_room(share, blame=False)

    def _make_room(self, share: Share, *, blame: bool = True) -> bool:
        """For parities."""
        generation = share.generation
        found = generation.share_of(self.name)
        m = 0 if found is None else generation.code(found[0])[1]
        sizes = [(m, generation.width(lane)) for lane in range(generation.lanes)]
        try:
            share.parities = self._rooms.take(sizes)
        except OSError:
            if blame:
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
        group = [(one.keeper, one.domain, one.parity) for one in said]
        if (group, capacities) != self._expected[:2] or self.share is not self._expected[2]:
            self._expected = (group, capacities, self.share, *self._rooms_for(said, capacities))
        sizes, exactly = self._expected[3:]
        return bool(sizes or exactly) and self._rooms.expect(sizes, exactly=exactly)

    def _rooms_for(self, said: Sequence[Standing], capacities: Sequence[int]) -> tuple[list[int], bool]:
        """Their sizes, and whether they are known."""
        share = self.share
        if share is not None and self._is_as_before(share, said, capacities):
            return self._sizes(share.generation), True
        lanes = tuple(Lane(str(at), 0, size, 0, 0) for at, size in enumerate(capacities))
        shares = [Given(one.keeper, one.domain, lanes) for one in said]
        if not lanes or len(said) < 2:
            return [], False
        return self._sizes(arranged(1, max(one.parity for one in said), shares)), False

    @staticmethod
    def _is_as_before(share: Share, said: Sequence[Standing], capacities: Sequence[int]) -> bool:
        """The same keepers, and buffers as its snapshots need."""
        needed = sorted(memory.whole_units(lane.bytes) for lane in share.lanes)
        return sorted(capacities) == needed and share.generation.keepers == {one.keeper for one in said}

    def _sizes(self, generation: Generation) -> list[int]:
        """Of this keeper's parities, by lane."""
        found = generation.share_of(self.name)
        assert found is not None
        m = generation.code(found[0])[1]
        sizes = (m * generation.width(lane) for lane in range(generation.lanes))
        return [memory.whole_units(size) for size in sizes if size]

    def _number_before(self, generation: Generation) -> int:
        """Of the generation that was coded last, if its share is whole here and lies as this one: then the
        differences of what has changed since are enough. Else 0."""
        before = self._before
        if before is None or before.share is not self.share or before.since_anew >= ANEW_EVERY:
            return 0
        if not lie_alike(replace(before.share.generation, identical=()), generation):
            return 0
        return self.calls.ask(self.intact)

    def _code(
        self, comm: Communicator, share: Share, ranks: Mapping[str, int], told: agreeing.Told
    ) -> Differences | None:
        """None: all of it anew."""
        changes, before = None, self._before
        if told.all_have_before and before is not None:
            changes = differences.agreed(comm, before, share, told.checksums, ranks)
        for lane in range(share.generation.lanes):
            one = LaneCoder(comm, share, lane, ranks, self.said.rate or None, OPERATION_S)
            one.anew() if changes is None else one.differences(changes)
        return changes

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
