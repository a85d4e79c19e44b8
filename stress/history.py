"""What a report draws: results per place, members, events, and what processes held, all over time."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from .resources import LIFE_S, Resources

BUCKETS = 240  # over a run: what a page can show


class Event(NamedTuple):
    """`sort`: "kill", "stop", or the name of a trouble."""

    t: float
    sort: str
    text: str


class History:
    """Times are of time.monotonic(); `seconds`: about how long the run will take."""

    def __init__(self, began: float, seconds: float) -> None:
        self.began = began
        self.bucket_s = max(0.1, seconds / BUCKETS)
        self.resources = Resources(min(5.0, max(0.1, seconds / 120)), min(LIFE_S, seconds / 2))
        self.events: list[Event] = []
        self.members: list[tuple[float, int]] = []
        self._results: Counter[tuple[int, int]] = Counter()

    def result(self, place: int, t: float) -> None:
        self._results[place, int((t - self.began) / self.bucket_s)] += 1

    def look(self, processes: dict[int, str], members: int, now: float) -> None:
        self.resources.look(processes, now)
        if not self.members or self.members[-1][1] != members:
            self.members.append((now, members))

    def rates(self) -> dict[int, list[tuple[float, float]]]:
        """Per place: (seconds since the begin, results per second)."""
        last = max((bucket for _, bucket in self._results), default=-1)
        return {
            place: [
                (bucket * self.bucket_s, self._results[place, bucket] / self.bucket_s)
                for bucket in range(last + 1)
            ]
            for place in sorted({place for place, _ in self._results})
        }
