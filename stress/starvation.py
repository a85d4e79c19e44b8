"""How long processes that could run had to wait for a core: a busy machine breaks no promise of ours."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

EVERY_S = 0.5
EXCUSED_TIMES = 3.0  # however busy the machine is, there is an end to it


def excused_s(starved_s: float, limit_s: float) -> float:
    """How much longer something may take that is to take `limit_s`."""
    return min(starved_s, EXCUSED_TIMES * limit_s)


class Starvation:
    """Of all processes that are shown to it, by the kernel's own count, summed over the threads of each.
    `kept_s`: it is asked about no longer time."""

    def __init__(self, kept_s: float = 60.0) -> None:
        self._kept_s = kept_s
        self._times: list[float] = []
        self._waits: list[dict[int, float]] = []  # by process, since it was started

    def look(self, pids: Iterable[int], now: float) -> None:
        if self._times and now - self._times[-1] < EVERY_S:
            return
        self._times.append(now)
        self._waits.append({pid: waited_s(pid) for pid in pids})
        while now - self._times[0] > self._kept_s:
            del self._times[0], self._waits[0]

    def since(self, t: float) -> float:
        """Seconds, of the process that waited longest since then: no more than have gone by, however many of
        its threads waited at the same time."""
        if not self._times:
            return 0.0
        first = max(0, bisect_right(self._times, t) - 1)
        before, after = self._waits[first], self._waits[-1]
        longest = max((waited - before.get(pid, 0.0) for pid, waited in after.items()), default=0.0)
        return min(longest, self._times[-1] - self._times[first])


class Patience:
    """With waits that are to end within `limit_s`, one after the other, for processes that `pids` names: one
    is over only when they would have had the cores for it."""

    def __init__(self, limit_s: float, pids: Callable[[], Iterable[int]]) -> None:
        self._limit_s, self._pids = limit_s, pids
        self._starvation, self._begun = Starvation(), 0.0

    def begin(self, now: float) -> None:
        self._starvation, self._begun = Starvation((1 + EXCUSED_TIMES) * self._limit_s + EVERY_S), now
        self._starvation.look(self._pids(), now)

    @property
    def starved_s(self) -> float:
        """Of the process that waited longest for a core meanwhile."""
        return self._starvation.since(self._begun)

    def is_over(self, now: float) -> bool:
        self._starvation.look(self._pids(), now)
        return now - self._begun > self._limit_s + excused_s(self.starved_s, self._limit_s)


def waited_s(pid: int) -> float:
    total = 0
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError, IndexError):
                total += int((thread / "schedstat").read_text().split()[1])
    return total * 1e-9
