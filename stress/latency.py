"""How long kills interrupt the survivors, and how long newcomers take; from times that peers and
orchestrator noted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass
class _Kill:
    at: float
    victim: int
    waiting: set[int]  # survivors by process id


class Recovery:
    """From just before the SIGKILL to the next all-reduce that a survivor finishes without the victim."""

    def __init__(self) -> None:
        self.samples_ms: list[float] = []
        self._kills: list[_Kill] = []

    def killed(self, victim: int, at: float, survivors: Iterable[int]) -> None:
        self._kills.append(_Kill(at, victim, set(survivors)))

    def committed(self, process: int, contributors: Sequence[int], at: float) -> list[tuple[int, float]]:
        """(victim, milliseconds) of the kills that are over for this survivor."""
        over = []
        for kill in self._kills:
            if process in kill.waiting and kill.victim not in contributors and at > kill.at:
                kill.waiting.discard(process)
                over.append((kill.victim, (at - kill.at) * 1e3))
        self.samples_ms += [took for _, took in over]
        self._kills = [kill for kill in self._kills if kill.waiting]
        return over

    def disturbed(self, process: int) -> None:
        """Killed, stopped or evicted itself: it is no survivor any more."""
        for kill in self._kills:
            kill.waiting.discard(process)
        self._kills = [kill for kill in self._kills if kill.waiting]

    def interrupted(self) -> None:
        """Something else than a kill holds everybody up."""
        self._kills.clear()

    @property
    def outstanding(self) -> int:
        """Survivors that have not gone on yet."""
        return sum(len(kill.waiting) for kill in self._kills)


class Joins:
    """From the moment when the last member had reached the boundary, and from the call of connect."""

    def __init__(self) -> None:
        self.boundary_ms: list[float] = []
        self.connect_ms: list[float] = []
        self._entered: dict[int, list[tuple[float, bool]]] = {}
        self._admitted: list[tuple[float, float]] = []

    def boundary(self, process: int, entered: float, changed: bool) -> None:
        self._entered.setdefault(process, []).append((entered, changed))

    def member(self, at: float, connect_s: float) -> None:
        self.connect_ms.append(connect_s * 1e3)
        self._admitted.append((at, connect_s))

    def settle(self, before: float) -> None:
        """Pairs admissions older than that with the boundary that let them in."""
        due = [item for item in self._admitted if item[0] < before]
        self._admitted = [item for item in self._admitted if item[0] >= before]
        for at, connect_s in due:
            latest = []
            for visits in self._entered.values():
                entered = [visit for visit in visits if visit[0] < at]
                if entered and entered[-1][1] and at - entered[-1][0] < 1.0:
                    latest.append(entered[-1][0])
            # Who came to the door after the members had reached the boundary is served as fast as it dials.
            if latest and max(latest) > at - connect_s:
                self.boundary_ms.append((at - max(latest)) * 1e3)
        oldest = min((at for at, _ in self._admitted), default=before) - 2.0
        for process, visits in self._entered.items():
            self._entered[process] = [visit for visit in visits if visit[0] >= oldest]


def summary(samples: Sequence[float]) -> dict[str, float] | None:
    """Median, 99th percentile (the smallest sample that 99 % do not exceed) and largest."""
    if not samples:
        return None
    ordered = sorted(samples)
    count = len(ordered)
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    p99 = ordered[min(count - 1, -(-99 * count // 100) - 1)]
    return {"median": round(middle, 3), "p99": round(p99, 3), "max": round(ordered[-1], 3), "count": count}
