"""Coding a generation, and what this keeper holds of the newest one. On the member's thread.

In two steps: parities are made beside those of the generation before; only when all keepers say that theirs
are placed, and that what they are made of was not written over meanwhile, do they count.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from ..communicator import Communicator
from ..errors import ProtocolError
from . import limits, memory, messages
from .calls import Calls
from .generation import Generation, Lane, arranged
from .generation import Share as Given
from .protection import Protection
from .rooms import Rooms
from .rounds import all_say_yes, known_from_all
from .share import Bytes, Mapped, Share
from .standing import Standing

logger = logging.getLogger("pccl_py.keeper")
OPERATION_S = 600.0


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
        self._expected: tuple[Sequence[object], Sequence[int], list[int]] = ((), (), [])

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
        if not self._exchange_tables(comm, generation, share, ranks) or share is None:
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
        steps = {trainer: lane.step for trainer, (_, lane) in generation.places().items()}
        losses = generation.losses()
        self.calls.ask(lambda: self.protection.complete(steps, losses))
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
        m = 0 if found is None else generation.code(found[0])[1]
        sizes = [(m, generation.width(lane)) for lane in range(generation.lanes)]
        try:
            parities = self._rooms.take(sizes)
        except OSError:
            self._blame(sum(rows * width for rows, width in sizes), m)
            return None
        return Share(generation, lanes, data, parities, tables)

    def _blame(self, needed: int, m: int) -> None:
        """Trainers are told why nothing is coded."""
        why = memory.exhausted(needed, memory.available(), f"what {m} parities take beside those before")
        logger.warning("%s", why)
        self.calls.later(lambda: self.protection.blame(why))

    def expect(self, said: Sequence[Standing], capacities: Sequence[int]) -> bool:
        """Makes memory for parities of snapshots as large as the trainers' buffers here (`capacities`), by
        steps; whether something is left to do."""
        group = [(one.keeper, one.domain, one.parity) for one in said]
        if (group, capacities) != self._expected[:2]:
            self._expected = (group, capacities, self._rooms_for(said, capacities))
        sizes = self._expected[2]
        return bool(sizes) and self._rooms.expect(sizes)

    def _rooms_for(self, said: Sequence[Standing], capacities: Sequence[int]) -> list[int]:
        lanes = tuple(Lane(str(at), 0, size, 0, 0) for at, size in enumerate(capacities))
        shares = [Given(one.keeper, one.domain, lanes) for one in said]
        if not lanes or len(said) < 2:
            return []
        generation = arranged(1, max(one.parity for one in said), shares)
        found = generation.share_of(self.name)
        assert found is not None
        m = generation.code(found[0])[1]
        sizes = (m * generation.width(lane) for lane in range(generation.lanes))
        return [memory.whole_units(size) for size in sizes if size]

    def _exchange_tables(
        self, comm: Communicator, generation: Generation, share: Share | None, ranks: Mapping[str, int]
    ) -> bool:
        """All get those of all: a lost trainer's is nowhere else. False: somebody (`share` None: this one)
        is not ready. How many bytes come of whom is known, so one exchange does for both."""
        sizes = [0] * len(ranks)
        for group in generation.groups:
            for one in group.shares:
                sizes[ranks[one.keeper]] = sum(lane.table_bytes for lane in one.lanes)
        if max(sizes) > limits.TABLE_BYTES_MAX:
            raise ProtocolError(f"a keeper has tables of {max(sizes)} bytes, more than there may be")
        mine = None if share is None else b"".join(share.tables[lane.trainer] for lane in share.lanes)
        by_rank = known_from_all(comm, mine, sizes)
        if by_rank is None or share is None:
            return False
        for group in generation.groups:
            for one in group.shares:
                words, at = by_rank[ranks[one.keeper]], 0
                for lane in one.lanes:
                    share.tables[lane.trainer] = words[at : at + lane.table_bytes]
                    at += lane.table_bytes
        return True

    def _code_lane(self, comm: Communicator, share: Share, lane: int, ranks: Mapping[str, int]) -> None:
        generation = share.generation
        width = generation.width(lane)
        sums = generation.parities(lane, ranks)
        if not sums or not width:
            return
        found = generation.share_of(self.name)
        assert found is not None
        group, slot, _ = found
        k, m = generation.code(group)
        blocks = share.blocks(lane, k)[:k]
        rows = generation.parity_rows(group, slot)
        comm.coded_reduce_scatter(
            blocks if m else [],
            [share.parities[lane][row] for row in rows],
            sums,
            block_bytes=width,
            rate_limit=self.said.rate or None,
            timeout=OPERATION_S,
        )

    def blocks_of(self, lane: int, group: int) -> list[Bytes]:
        """What this keeper gives to bring back a snapshot of that lane and group."""
        share = self.share
        found = None if share is None else share.generation.share_of(self.name)
        if share is None or found is None or found[0] != group:
            return []
        return share.blocks(lane, share.generation.code(group)[0])
