"""A peer that reduces the same tensor again and again, in place: for measuring what an interruption costs."""

from __future__ import annotations

import multiprocessing
import time

import numpy as np

import pccl_py as pccl

from . import oracles
from .memory import Array
from .oracles import Kind, Name
from .peer import Peer, Seat
from .processes import end_with
from .records import Writer

_NAME, _KIND = Name(0, 0, 0, 0), Kind("float32", "sum", False)


class SteadyPeer(Peer):
    """`size`: bytes of the float32 tensor. `workers`: processes that it forks after joining, like a data
    loader; they hold whatever a fork inherits, and live until the orchestrator ends them."""

    def __init__(self, seat: Seat, out: Writer, size: int, workers: int, lifeline: int) -> None:
        super().__init__(seat, out)
        self._count = size // 4
        self._workers = workers
        self._lifeline = lifeline
        self._rounds = 0
        self._sums: dict[tuple[int, ...], Array] = {}
        self._peer = 0
        self._tensor: Array = np.zeros(self._count, np.float32)
        self._own = self._tensor

    def round(self) -> None:
        if self.comm.id != self._peer:
            self._settle_in()
        self.boundary()
        np.copyto(self._tensor, self._own)
        self._rounds += 1
        self.out.say("start", window=self._rounds)
        began = time.monotonic()
        info = self.comm.all_reduce(self._tensor)
        ended = time.monotonic()
        assert isinstance(info, pccl.OpInfo)
        contributors = list(info.contributors)
        self.out.say(
            "commit",
            t=ended,
            key=[self._rounds, 0, "group", 0],
            contributors=contributors,
            digest=0,
            attempts=info.attempts,
            seconds=ended - began,
        )
        if not np.array_equal(self._tensor, self._sum(info.contributors)):
            text = oracles.compare(self._tensor, contributors, _NAME, _KIND)
            self.out.say("wrong", key=[self._rounds, 0, "group", 0], text=f"{text}; {info}")

    def _settle_in(self) -> None:
        """As a member with a new id."""
        self._peer = self.comm.id
        self._own = oracles.contribution(self._peer, _NAME, _KIND, self._count)
        for _ in range(self._workers):
            worker = multiprocessing.get_context("fork").Process(
                target=_work, args=(self.out, self._lifeline)
            )
            worker.daemon = True
            worker.start()
        self._workers = 0

    def _sum(self, contributors: tuple[int, ...]) -> Array:
        if contributors not in self._sums:
            self._sums = {contributors: oracles.expected(contributors, _NAME, _KIND, self._count)}
        return self._sums[contributors]


def _work(out: Writer, lifeline: int) -> None:
    out.close()
    end_with(lifeline)
