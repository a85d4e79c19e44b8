"""Bringing a snapshot to a keeper that does not have it: decoded by those who are left, or from one that
kept it. It is streamed into a buffer as trainers have them, checked, and then as good as if it had been taken
there.
"""

from __future__ import annotations

import logging
import mmap
import os
import zlib

import numpy as np

from ..coded_calls import CodedSum, CodedTerm
from ..communicator import Communicator
from ..erasure.reed_solomon import ReedSolomon
from ..errors import DamagedError, SnapshotError
from . import memory, table
from .coding import OPERATION_S, Coding
from .decide import Move, Rescue
from .generation import Generation, Lane, Place
from .holding import Refusal
from .rounds import all_say_yes, from_one
from .share import Bytes
from .standing import Standing
from .verified import damaged_blocks

logger = logging.getLogger("pccl_py.keeper")


class Bringing:
    """hopeless    trainers whose snapshot came here with wrong bytes, or found no room
    doubts      one has just come with wrong bytes: whoever gave them shall look at what it holds
    """

    def __init__(self, coding: Coding) -> None:
        self._coding = coding
        self.hopeless: set[str] = set()
        self.doubts = False
        self._doubted: set[Lane] = set()

    def rescue(self, comm: Communicator, work: Rescue, said: list[Standing]) -> None:
        known = self._coding.known
        assert known is not None
        place, lane = work.place, work.lane
        present = {one.keeper: rank for rank, one in enumerate(said) if one.intact == known.number}
        sums = known.rescue(place, present, work.owner)
        assert sums is not None
        share = self._coding.share
        words = None if share is None else share.tables.get(lane.trainer)
        blocks = self._coding.blocks_of(place.lane, place.group)
        if comm.rank == work.owner and self._alone(sums, work.owner):
            self._keep(lane, self._decoded_here(known, place, sums, blocks), words or b"")
            return
        if self._alone(sums, work.owner):
            return
        width, k = known.width(place.lane), known.code(place.group)[0]
        self._bring(comm, lane, work.owner, sums, blocks, width, k, min(present.values()), words)

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
        self._bring(comm, lane, work.owner, sums, blocks, lane.bytes, 1, work.source, words)

    def _bring(
        self,
        comm: Communicator,
        lane: Lane,
        owner: int,
        sums: list[CodedSum],
        blocks: list[Bytes],
        width: int,
        count: int,
        told_by: int,
        words: bytes | None,
    ) -> None:
        """All take part; the owner has it then, or calls it hopeless."""
        fd = self._room(width * count) if comm.rank == owner else -1
        try:
            if comm.rank == owner and fd < 0:
                self.hopeless.add(lane.trainer)
            if not all_say_yes(comm, comm.rank != owner or fd >= 0):
                return
            words = from_one(comm, told_by, words, lane.table_bytes)
            target = np.frombuffer(mmap.mmap(fd, width * count), np.uint8) if fd >= 0 and width else None
            if width:
                out = [] if target is None else list(target.reshape(count, width))
                limit = self._coding.said.rate or None
                comm.coded_reduce_scatter(
                    blocks, out, sums, block_bytes=width, rate_limit=limit, timeout=OPERATION_S
                )
            if fd >= 0:
                whole = np.empty(0, np.uint8) if target is None else target
                self._check(lane, whole, words)
                kept, fd = fd, -1
                self._coding.calls.ask(lambda: self._coding.protection.adopt(lane, kept, words))
                logger.info("step %d of trainer %r is here now", lane.step, lane.trainer)
        except (DamagedError, SnapshotError, Refusal) as error:
            self._failed(lane, error)
        finally:
            if fd >= 0:
                os.close(fd)

    def _failed(self, lane: Lane, error: Exception) -> None:
        """Damaged bytes are asked for once more, of those whose part is whole."""
        logger.warning("trainer %r cannot be brought back: %s", lane.trainer, error)
        if isinstance(error, DamagedError) and lane not in self._doubted:
            self._doubted.add(lane)
            self.doubts = True
        else:
            self.hopeless.add(lane.trainer)

    def _room(self, count: int) -> int:
        """Populated memory as trainers' buffers are; -1: there is none."""
        wanted = memory.whole_units(count)
        if wanted > memory.available():
            logger.warning("%s", memory.exhausted(wanted, memory.available(), "a snapshot of a lost host"))
            return -1
        fd = memory.make("pccl-0", wanted)
        try:
            memory.fill(fd, wanted, lambda: True)
        except OSError:
            os.close(fd)
            return -1
        return fd

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

    @staticmethod
    def _alone(sums: list[CodedSum], owner: int) -> bool:
        return all(term.rank == owner for one in sums for term in one.terms)

    @staticmethod
    def _decoded_here(known: Generation, place: Place, sums: list[CodedSum], blocks: list[Bytes]) -> Bytes:
        """Where this keeper alone is left of a group of which any one is enough."""
        k, m = known.code(place.group)
        width = known.width(place.lane)
        (term,) = sums[0].terms
        whole = np.zeros(width, np.uint8)
        source = np.zeros(width, np.uint8)
        source[: len(blocks[term.block])] = blocks[term.block]
        shards: list[Bytes | None] = [None] * (k + m)
        shards[0], shards[term.block] = whole, source
        ReedSolomon(k, m).decode(shards, [term.block])
        return whole

    def _keep(self, lane: Lane, whole: Bytes, words: bytes) -> None:
        fd = self._room(whole.nbytes)
        try:
            if fd < 0:
                raise SnapshotError("there is no memory for it")
            self._check(lane, whole, words)
            with mmap.mmap(fd, memory.size_of(fd)) as mapped:
                mapped[: whole.nbytes] = whole.tobytes()
            kept, fd = fd, -1
            self._coding.calls.ask(lambda: self._coding.protection.adopt(lane, kept, words))
        except (DamagedError, SnapshotError, Refusal) as error:
            self._failed(lane, error)
        finally:
            if fd >= 0:
                os.close(fd)
