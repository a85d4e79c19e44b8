"""What processes hold while they run: memory, shared memory, descriptors and threads; and whether it grows.

A process leaks when the least that it held in a quarter of its life grows from the second one to the last,
and well so: what is fetched and returned again, and what is made once at the beginning, does not count.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

MIB = 1 << 20
SAMPLES_MIN = 24  # of a process that is judged: six per quarter
LIFE_S = 20.0  # of a process that is judged

# What a process may hold more at the end than in its second quarter: so much, and this share of it.
ALLOWED: dict[str, tuple[float, float]] = {
    "memory": (48 * MIB, 0.25),
    "shared_memory": (32 * MIB, 0.5),
    "descriptors": (12, 0.25),
    "threads": (4, 0.25),
}


class Sample(NamedTuple):
    """memory, shared_memory: bytes that are in RAM."""

    t: float
    memory: int
    shared_memory: int
    descriptors: int
    threads: int


def sample(pid: int, now: float) -> Sample | None:
    """None: there is no such process any more."""
    with suppress(OSError, ValueError):
        found = {}
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            found[name] = value.split()[0] if value.split() else ""
        memory, shared = (int(found.get(name, 0)) << 10 for name in ("RssAnon", "RssShmem"))
        if memory == 0:
            return None  # it ends just now
        return Sample(now, memory, shared, len(os.listdir(f"/proc/{pid}/fd")), int(found["Threads"]))
    return None


@dataclass
class Life:
    """Of one process: its samples, in order of time."""

    name: str
    samples: list[Sample] = field(default_factory=list)

    def leaks(self, life_s: float) -> list[str]:
        """What grows, for people; nothing is said of a life that is shorter."""
        count = len(self.samples)
        if count < SAMPLES_MIN or self.samples[-1].t - self.samples[0].t < life_s:
            return []
        bounds = [count * quarter // 4 for quarter in (1, 2, 3, 4)]
        quarters = [self.samples[a:b] for a, b in pairwise(bounds)]
        found = []
        for name, (more, share) in ALLOWED.items():
            least = [min(getattr(one, name) for one in quarter) for quarter in quarters]
            if least[0] < least[1] < least[2] and least[2] - least[0] > max(more, share * least[0]):
                seconds = quarters[2][0].t - quarters[0][0].t
                found.append(f"{self.name}: {name} grew from {least[0]} to {least[2]} within {seconds:.0f} s")
        return found


class Resources:
    """Of all processes of a run. `every_s`: between two samples of one process. `life_s`: shorter lives are
    not judged."""

    def __init__(self, every_s: float = 0.5, life_s: float = LIFE_S) -> None:
        self._life_s = life_s
        self.lives: dict[int, Life] = {}
        self.every_s = every_s
        self._next = 0.0

    def look(self, processes: dict[int, str], now: float) -> None:
        """`processes`: name by pid. Does nothing more often than `every_s`."""
        if now < self._next:
            return
        self._next = now + self.every_s
        for pid, name in processes.items():
            taken = sample(pid, now)
            if taken is not None:
                self.lives.setdefault(pid, Life(name)).samples.append(taken)

    def leaks(self) -> list[str]:
        return [text for life in self.lives.values() for text in life.leaks(self._life_s)]
