"""What is to be done when: actions drawn from the seed, and what follows from them."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

Action = Callable[[], None]


class Timetable:
    """Times are of time.monotonic(). Actions of one moment happen in the order in which they were noted."""

    def __init__(self) -> None:
        self._noted: list[tuple[float, int, Action]] = []
        self._numbers = itertools.count()

    def at(self, when: float, action: Action) -> None:
        heapq.heappush(self._noted, (when, next(self._numbers), action))

    def due(self) -> float:
        """When the next one is; infinity: none."""
        return self._noted[0][0] if self._noted else float("inf")

    def act(self, now: float) -> None:
        """Everything that is due, also what that notes for now."""
        while self._noted and self._noted[0][0] <= now:
            heapq.heappop(self._noted)[2]()

    def clear(self) -> None:
        self._noted.clear()
