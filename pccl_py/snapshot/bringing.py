"""Bringing a snapshot to a keeper that does not have it: decoded by those who are left, or from one that
kept it. It is streamed into a buffer as trainers have them, checked, and then as good as if it had been taken
there.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..coded_calls import CodedSum, CodedTerm
from ..communicator import Communicator
from ..errors import DamagedError, SnapshotError
from . import limits, memory, table
from .coding import OPERATION_S, Coding
from .decide import Move, Rescue
from .generation import Generation, Lane
from .holding import Refusal
from .rounds import all_say_yes, from_one
from .share import Bytes
from .standing import Standing
from .verified import damaged_blocks

logger = logging.getLogger("pccl_py.keeper")


@dataclass(frozen=True, slots=True)
class Stream:
    """`count` blocks of `width` bytes, for the bytes of a snapshot from `first` on: `sums` of what all have,
    of which `blocks` are this keeper's."""

    first: int
    width: int
    count: int
    sums: list[CodedSum]
    blocks: list[Bytes]

    def rows_of(self, target: Bytes) -> list[Bytes]:
        end = self.first + self.width * self.count
        return list(target[self.first : end].reshape(self.count, self.width))


class Bringing:
    """goes_on     whether this keeper does, asked while memory is made
    hopeless    trainers whose snapshot came here with wrong bytes, or found no room
    doubts      one has just come with wrong bytes: whoever gave them shall look at what it holds
    """

    def __init__(self, coding: Coding, goes_on: Callable[[], bool]) -> None:
        self._coding, self._goes_on = coding, goes_on
        self.hopeless: set[str] = set()
        self.doubts = False
        self._doubted: set[Lane] = set()

    def rescue(self, comm: Communicator, work: Rescue, said: list[Standing]) -> None:
        known = self._coding.known
        assert known is not None
        lane = work.lane
        present = {one.keeper: rank for rank, one in enumerate(said) if one.intact == known.number}
        share = self._coding.share
        words = None if share is None else share.tables.get(lane.trainer)
        streams = self._coded(known, work, present) + self._identical(known, work, present, comm.rank)
        self._bring(comm, lane, work.owner, streams, min(present.values()), words)

    def _coded(self, known: Generation, work: Rescue, present: Mapping[str, int]) -> list[Stream]:
        """The areas, rising: what one writes beyond its end, as its last block is filled up with zeros, comes
        to lie where another one follows, or what is identical, or at the end of all."""
        place = work.place
        areas = known.coded_areas(place, work.lane)
        sums = known.rescue(place, present, work.owner) if areas else []
        assert sums is not None
        k = known.code(place.group)[0]
        blocks = [self._coding.blocks_of(place.lane, place.group, area) for area in areas]
        return [Stream(area.first, area.width, k, sums, own) for area, own in zip(areas, blocks, strict=True)]

    def _identical(
        self, known: Generation, work: Rescue, present: Mapping[str, int], rank: int
    ) -> list[Stream]:
        """Each range from one that has it, in turns; from the owner itself, if it does."""
        lane, owner = work.place.lane, work.owner
        holders = known.holders(work.place, present)
        streams = []
        for at, part in enumerate(known.identical_of(lane)):
            source = owner if owner in holders else holders[at % len(holders)]
            blocks = [self._coding.bytes_of(lane, part)] if rank == source else []
            sums = [CodedSum(owner, (CodedTerm(source, 0, 1),))]
            streams.append(Stream(part.first, part.last - part.first, 1, sums, blocks))
        return streams

    def move(self, comm: Communicator, work: Move) -> None:
        lane = work.lane
        blocks: list[Bytes] = []
        words = None
        if comm.rank == work.source:
            found = self._coding.calls.ask(lambda: self._coding.protection.memory(lane))
            if found is not None:
                words = found.table
                blocks = [self._coding.mapped.view(found)[: lane.bytes]]
        if not all_say_yes(comm, comm.rank != work.source or words is not None):
            return
        sums = [CodedSum(work.owner, (CodedTerm(work.source, 0, 1),))]
        self._bring(comm, lane, work.owner, [Stream(0, lane.bytes, 1, sums, blocks)], work.source, words)

    def _bring(
        self,
        comm: Communicator,
        lane: Lane,
        owner: int,
        streams: Sequence[Stream],
        told_by: int,
        words: bytes | None,
    ) -> None:
        """All take part; the owner has it then, or calls it hopeless."""
        size = max([lane.bytes, *(one.first + one.width * one.count for one in streams)])
        fd = self._room(lane.trainer, size) if comm.rank == owner else -1
        try:
            if comm.rank == owner and fd < 0:
                self.hopeless.add(lane.trainer)
            if not all_say_yes(comm, comm.rank != owner or fd >= 0):
                return
            words = from_one(comm, told_by, words, lane.table_bytes)
            target = memory.mapped(fd, size, to_write=True) if fd >= 0 and size else None
            for one in streams:
                self._receive(comm, one, owner, [] if target is None else one.rows_of(target))
            if fd >= 0:
                whole = np.empty(0, np.uint8) if target is None else target
                self._check(lane, whole, words)
                kept, fd = fd, -1
                self._coding.calls.ask(lambda: self._coding.protection.adopt(lane, kept, words))
                self._coding.lose(lane)
                logger.info("step %d of trainer %r is here now", lane.step, lane.trainer)
        except (DamagedError, SnapshotError, Refusal) as error:
            self._failed(lane, error)
        finally:
            if fd >= 0:
                os.close(fd)

    def _receive(self, comm: Communicator, one: Stream, owner: int, out: list[Bytes]) -> None:
        if not one.width:
            return
        if not all(term.rank == owner for total in one.sums for term in total.terms):
            limit = self._coding.said.rate or None
            comm.coded_reduce_scatter(
                one.blocks, out, one.sums, block_bytes=one.width, rate_limit=limit, timeout=OPERATION_S
            )
            return
        for row, total in zip(out, one.sums, strict=True) if out else []:
            (term,) = total.terms  # of a code in which any one block is enough: all coefficients are 1
            block = one.blocks[term.block]
            row[: len(block)] = block
            row[len(block) :] = 0

    def _failed(self, lane: Lane, error: Exception) -> None:
        """Damaged bytes are asked for once more, of those whose part is whole."""
        logger.warning("trainer %r cannot be brought back: %s", lane.trainer, error)
        if isinstance(error, DamagedError) and lane not in self._doubted:
            self._doubted.add(lane)
            self.doubts = True
        else:
            self.hopeless.add(lane.trainer)

    def _room(self, trainer: str, count: int) -> int:
        """Populated memory as trainers' buffers are; -1: there is none."""
        wanted = memory.whole_units(count)
        ahead = self._coding.calls.ask(lambda: self._coding.protection.room_ahead(trainer))
        if ahead is not None and (fd := ahead.take(wanted, OPERATION_S)) >= 0:
            return fd
        if wanted > memory.available():
            logger.warning("%s", memory.exhausted(wanted, memory.available(), "a snapshot of a lost host"))
            return -1
        fd = memory.make("pccl-0", wanted)
        try:
            threads = min(limits.FILL_THREADS_MAX, len(os.sched_getaffinity(0)))
            if memory.fill(fd, wanted, self._goes_on, threads):
                return fd
        except (OSError, RuntimeError):
            pass
        os.close(fd)
        return -1

    @staticmethod
    def _check(lane: Lane, whole: Bytes, words: bytes) -> None:
        """Every block has the checksum that it was taken with. Raises DamagedError."""
        what = f"step {lane.step} of trainer {lane.trainer!r}, as it was brought here,"
        if zlib.crc32(words) != lane.crc32:
            raise DamagedError(f"{what} has a wrong table")
        described = table.decode(words, what)
        wrong = damaged_blocks(whole.data[: lane.bytes], described.crcs, described.block_bytes)
        if wrong:
            raise DamagedError(f"{what} has {len(wrong)} blocks with wrong checksums")
