"""The loop's side of coding across hosts: what trainers ask for, and what the keeper's member of the run is
told and tells. Everything here runs on the loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from . import limits, memory, messages
from .ahead import Ahead, RoomsAhead
from .generation import Lane
from .holding import FileKey, Holding, Refusal, file_key
from .standing import AGE_MS_MAX, AGE_MS_STEP, Held

Answer = Callable[[messages.Message], None]


@dataclass(frozen=True, slots=True)
class Memory:
    """A complete snapshot: a descriptor of its buffer, the caller's; its table."""

    fd: int
    capacity: int
    table: bytes


@dataclass(slots=True)
class _Waiting:
    """A trainer that waits until `until` for its snapshot of `step` to be coded; for a lost one: None."""

    step: int | None
    until: float
    answer: Answer


@dataclass(slots=True)
class _Forgetting:
    """Of steps beyond `after`. `said`: the others are told in this round; `heard`: they were."""

    after: int
    until: float
    answer: Callable[[], None]
    said: bool = False
    heard: bool = False


class Member(Protocol):
    """What joins the run."""

    def stop(self) -> None: ...
    def wake(self) -> None:
        """There is something new to tell the others."""

    def unmap(self, file: FileKey) -> None:
        """A trainer's buffer is given up."""


@dataclass(slots=True)
class Protection:
    """`attached`: names of the trainers that are here. `ahead`: memory for what they ask others for."""

    holdings: dict[str, Holding]
    attached: Callable[[], set[str]]
    orphan_s: float
    ahead: RoomsAhead | None = None
    options: messages.Protect | None = None
    member: Member | None = None
    coded: dict[str, int] = field(default_factory=dict)
    identical: dict[str, int] = field(default_factory=dict)
    unchanged: dict[str, int] = field(default_factory=dict)
    losses: int = 0
    parity_bytes: int = 0  # of memory for parities
    fault: str = ""
    freed: set[str] = field(default_factory=set)
    emptied: bool = False  # the last that was here is freed
    _waiting: dict[str, _Waiting] = field(default_factory=dict)
    _forgetting: dict[str, _Forgetting] = field(default_factory=dict)
    _given_up: dict[str, int] = field(default_factory=dict)  # after which step, since what is coded was coded
    _unheeded: set[tuple[str, int]] = field(default_factory=set)
    _spoilt: set[tuple[str, int]] = field(default_factory=set)  # snapshots whose bytes are damaged here

    # --- What trainers say.

    def begin(self, said: messages.Protect, start: Callable[[messages.Protect], Member]) -> None:
        if self.options is not None and self.options != said:
            raise Refusal("wrong", f"this keeper is protected by {self.options}, not by {said}")
        if self.options is None:
            self.options, self.member = said, start(said)

    def await_coded(self, trainer: str, said: messages.AwaitCoded, answer: Answer) -> None:
        if said.seconds == 0 and self._coded(trainer) < said.step:
            self._unheeded.add((trainer, said.step))
        self._waiting[trainer] = _Waiting(said.step, time.monotonic() + said.seconds, answer)
        if self._coded(trainer) < said.step:  # else nobody has anything to do
            self._wake()
        self.look()

    def _coded(self, trainer: str) -> int:
        """The step of the trainer that is coded, -1: none that it has not given up since."""
        coded = self.coded.get(trainer, -1)
        return -1 if coded > self._given_up.get(trainer, coded) else coded

    def fetch(self, trainer: str, said: messages.Fetch, answer: Answer) -> None:
        self._waiting[trainer] = _Waiting(None, time.monotonic() + said.seconds, answer)
        if self.ahead is not None and self.holdings[trainer].newest is None:
            self.ahead.expect(trainer, said.bytes)
        self._wake()
        self.look()

    def _wake(self) -> None:
        if self.member is not None:
            self.member.wake()

    def given_up(self, fd: int) -> None:
        """A buffer is replaced by a larger one: what the member has mapped of it would be there beside it."""
        if self.member is not None and fd >= 0:
            self.member.unmap(file_key(fd))

    def forgotten(self, trainer: str, after: int, answer: Callable[[], None]) -> None:
        """Steps beyond `after` are given up, by the trainer itself: others do not bring them back. Answered
        when they have heard of it, and an older one that is here is coded in their place; or after a while.
        """
        self._given_up[trainer] = after
        for steps in (self._unheeded, self._spoilt):  # these may be taken again, and are others then
            steps.difference_update([one for one in steps if one[0] == trainer and one[1] > after])
        if self.holdings[trainer].newest is None:
            self.freed.add(trainer)
        if self.member is None:
            answer()
            return
        self._forgetting[trainer] = _Forgetting(after, time.monotonic() + limits.FORGET_S, answer)
        self._wake()

    def round_begins(self, heard: bool) -> None:
        """The member tells the others how all is here. `heard`: what it said in the last round they heard."""
        for one in self._forgetting.values():
            one.heard |= heard and one.said
            one.said = True
        self._look_at_forgetting(time.monotonic())

    def gone(self, trainer: str) -> None:
        """Its connection is."""
        self._end_wait(trainer)
        self._forgetting.pop(trainer, None)
        holding = self.holdings.get(trainer)
        newest = None if holding is None else holding.newest
        if newest is not None and (trainer, newest.step) in self._spoilt:
            self._drop(trainer)  # who comes is to get what the others have

    # --- What the member asks.

    def held(self) -> list[Held]:
        found, attached = [], self.attached()
        for trainer, holding in self.holdings.items():
            one = holding.newest
            if one is not None and (trainer, one.step) not in self._unheeded | self._spoilt:
                age = min(max(int((time.time() - one.time) * 1000), 0), AGE_MS_MAX)
                age -= age % AGE_MS_STEP
                lane = (trainer, one.step, one.bytes, one.table_bytes, one.crc32)
                found.append(Held(*lane, trainer in attached, age))
        return found

    def wants(self) -> list[str]:
        return [
            trainer
            for trainer, one in self._waiting.items()
            if one.step is None and self.holdings[trainer].newest is None
        ]

    def files(self) -> set[FileKey]:
        """Of the trainers' buffers."""
        return {key for holding in self.holdings.values() for key in holding.files}

    def capacities(self) -> list[int]:
        """Of each trainer's buffers, as far as they are there."""
        return [size for size in (one.capacity for one in self.holdings.values()) if size]

    def intact(self, lanes: tuple[Lane, ...]) -> bool:
        """Whether none of them has been, or may have been, written over."""
        return all(
            lane.trainer in self.holdings
            and self.holdings[lane.trainer].slot_of(lane.step, lane.crc32) >= 0
            and (lane.trainer, lane.step) not in self._unheeded | self._spoilt
            for lane in lanes
        )

    def memory(self, lane: Lane) -> Memory | None:
        holding = self.holdings.get(lane.trainer)
        slot = -1 if holding is None else holding.slot_of(lane.step, lane.crc32)
        if holding is None or slot < 0 or (lane.trainer, lane.step) in self._spoilt:
            return None
        fd, capacity = holding.buffer(slot)
        return Memory(os.dup(fd), capacity, holding.table(slot))

    def room_ahead(self, trainer: str) -> Ahead | None:
        """Made for what that trainer has lost; the caller's. None: it has asked for nothing."""
        return None if self.ahead is None else self.ahead.pop(trainer)

    def adopt(self, lane: Lane, fd: int, table: bytes) -> None:
        """What was brought back. Takes the descriptor. Raises Refusal."""
        holding = self.holdings.get(lane.trainer)
        if holding is None:
            if len(self.holdings) >= limits.TRAINERS_MAX:
                os.close(fd)
                raise Refusal("wrong", "this keeper has as many trainers as it may have")
            holding = Holding(lane.trainer)
            holding.gone_since, holding.orphan_s = time.monotonic(), self.orphan_s
        if holding.newest is not None:
            os.close(fd)
            raise Refusal("wrong", "this keeper has a snapshot of that trainer")
        capacity = memory.size_of(fd)
        slot = messages.Slot("complete", capacity, lane.step, lane.bytes, len(table), lane.crc32)
        holding.adopt(slot, fd, memory.sealed_copy("pccl-table", table))
        self.holdings[lane.trainer] = holding
        self.look()

    def drop(self, over: list[str], elsewhere: list[str]) -> None:
        """Copies that are for nobody: their trainers have freed theirs, or go on elsewhere. A keeper that was
        started for a successor has nothing yet either, and stays: its trainer is about to come.
        """
        for trainer in (*over, *elsewhere):
            if trainer not in self.attached() and trainer in self.holdings:
                self._drop(trainer)
        self.emptied |= bool(over or self.freed) and not self.holdings

    def spoil(self, lane: Lane) -> None:
        """Its bytes are damaged. A trainer that is there goes on, and takes its next one; what is newer than
        that is sound."""
        newest = self.holdings[lane.trainer].newest
        if lane.trainer in self.attached() or (newest is not None and newest.step > lane.step):
            self._spoilt.add((lane.trainer, lane.step))
        else:
            self._drop(lane.trainer)

    def _drop(self, trainer: str) -> None:
        self.holdings.pop(trainer).close()
        self._spoilt = {one for one in self._spoilt if one[0] != trainer}

    def refuse(self, trainer: str, code: str, why: str) -> None:
        """What its trainer wants cannot be had."""
        one = self._waiting.get(trainer)
        if one is not None and one.step is None:
            self._end_wait(trainer)
            one.answer(messages.Refused(code, why[: limits.TEXT_CHARS_MAX], 0, 0))

    def complete(
        self, steps: dict[str, int], losses: int, identical: dict[str, int], unchanged: dict[str, int]
    ) -> None:
        """`identical`: bytes of each trainer's snapshot that all have, and that are not coded; `unchanged`:
        bytes of those here that are as in the one before."""
        self.coded, self.losses, self.fault = steps, losses, ""
        self.identical, self.unchanged = identical, unchanged
        self._given_up.clear()
        self._unheeded = {one for one in self._unheeded if one[1] > steps.get(one[0], -1)}
        self._spoilt = {one for one in self._spoilt if one[1] >= steps.get(one[0], -1)}
        self.look()

    def blame(self, why: str) -> None:
        """For what trainers wait in vain."""
        self.fault = why[: limits.TEXT_CHARS_MAX]

    def tell(self, losses: int, parity_bytes: int) -> None:
        self.losses, self.parity_bytes = losses, parity_bytes

    # --- Clocks.

    def look(self) -> None:
        now = time.monotonic()
        for trainer, one in list(self._waiting.items()):
            message = self._answer_to(trainer, one, now)
            if message is not None:
                self._end_wait(trainer)
                one.answer(message)
        self._look_at_forgetting(now)

    def _end_wait(self, trainer: str) -> None:
        one = self._waiting.pop(trainer, None)
        if one is not None and one.step is None and self.ahead is not None:
            self.ahead.give_up(trainer)

    def _look_at_forgetting(self, now: float) -> None:
        for trainer, one in list(self._forgetting.items()):
            replaced = self.holdings[trainer].newest is None or self.coded.get(trainer, -1) <= one.after
            if (one.heard and replaced) or now > one.until:
                del self._forgetting[trainer]
                one.answer()

    def _answer_to(self, trainer: str, one: _Waiting, now: float) -> messages.Message | None:
        if one.step is None:
            newest = self.holdings[trainer].newest
            if newest is None and now < one.until:
                return None
            return messages.Fetched(-1 if newest is None else newest.step)
        coded = self._coded(trainer)
        if coded < one.step and now < one.until:
            return None
        losses, fault = min(self.losses, limits.LOSSES_MAX), self.fault[: limits.TEXT_CHARS_MAX]
        parities = self._parities_of(trainer)
        identical, unchanged = self.identical.get(trainer, 0), self.unchanged.get(trainer, 0)
        return messages.Coded(coded, losses, fault, parities, identical, unchanged)

    def _parities_of(self, trainer: str) -> int:
        """Its part of that memory: as its buffers are of all buffers."""
        of_all = sum(one.memory_bytes for one in self.holdings.values())
        return self.parity_bytes * self.holdings[trainer].memory_bytes // of_all if of_all else 0
