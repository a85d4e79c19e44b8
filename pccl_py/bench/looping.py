"""A peer that reduces again and again until something happens to the run, and checks every result.

Each peer contributes its own power of two, so that a result tells who is in it; in place, so that a wrong
undo shows. The tensor is filled again for the next operation.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from ..errors import PcclError
from .peers import Peer
from .units import KIB

_OUTLIVES_S = 1.0
_LEAST_BYTES = 4


class LoopingPeer(Peer):
    """Peers of one run are told apart by `slot`: a number below 24 that no living peer shares."""

    def __init__(self, host: int, slot: int, size: int = 4 * KIB, **settings: Any) -> None:
        super().__init__(host, **settings)
        self._own = np.float32(1 << slot)
        self._array = self._empty(max(size, _LEAST_BYTES) // 4)

    def ready(self) -> None:
        """Answers when the process is there."""

    def slot_of(self) -> dict[str, int]:
        return {"id": self.comm.id, "slot": int(self._own).bit_length() - 1}

    def fork_children(self, count: int) -> None:
        """Like workers of a data loader: they inherit what is open, and outlive this process for a while."""
        for _ in range(count):
            parent = os.getpid()
            if os.fork() == 0:
                while os.getppid() == parent:
                    time.sleep(0.05)
                time.sleep(_OUTLIVES_S)
                os._exit(0)

    def run(self) -> None:
        """For ever: this peer is killed or stopped in here."""
        while True:
            self._reduce()

    def run_until_error(self) -> str:
        """The name of the error that ended it."""
        while True:
            try:
                self._reduce()
            except PcclError as error:
                return type(error).__name__

    def run_until(self, slots: dict[str, int], without: int) -> dict[str, Any]:
        """Reduces until a result is without the peer `without`: when that came, how many were wrong until
        then, CPU seconds and seconds of the last one. `slots`: by id of a peer."""
        operations = wrong = 0
        while True:
            before, cpu = time.monotonic(), time.process_time()
            info = self._reduce()
            ended = time.monotonic()
            operations += 1
            wrong += not self._is_sum_of([slots[str(peer)] for peer in info.contributors])
            if without not in info.contributors:
                break
        return {
            "ended": ended,
            "operations": operations,
            "wrong": wrong,
            "attempts": info.attempts,
            "last_seconds": ended - before,
            "last_cpu": time.process_time() - cpu,
        }

    def run_through(self, seconds: float, slots: int) -> dict[str, Any]:
        """Reduces for so long, all `slots` peers with each other: the longest operation, how many there were,
        and how many results were wrong. The one of slot 0 says when it is over, in an element of its own."""
        longest, operations, wrong, over = 0.0, 0, 0, False
        end = time.monotonic() + seconds
        own, last = float(self._own), self._own == 1
        while not over:
            self._array.fill(own)
            self._array[-1] = float(last and time.monotonic() >= end)
            began = time.monotonic()
            info = self.comm.all_reduce(self._array)
            longest = max(longest, time.monotonic() - began)
            over = bool(self._array[-1])
            operations += 1
            whole = len(info.contributors) == slots
            wrong += not (whole and (self._array[:-1] == (1 << slots) - 1).all())
        return {"longest": longest, "operations": operations, "wrong": wrong}

    def run_until_joined(self, islands: int) -> dict[str, Any]:
        """Reduces, and calls update_topology() after each, until the run has so many islands: when the
        boundary that let the last one in was entered and left."""
        while True:
            self._reduce()
            entered = time.monotonic()
            self.comm.update_topology()
            if self.comm.islands == islands:
                return {"entered": entered, "left": time.monotonic()}

    def reduce(self, count: int = 1) -> None:
        for _ in range(count):
            self._reduce()

    def _reduce(self) -> Any:
        self._array.fill(self._own)
        return self.comm.all_reduce(self._array)

    def _is_sum_of(self, slots: list[int]) -> bool:
        return bool((self._array == sum(1 << slot for slot in slots)).all())
