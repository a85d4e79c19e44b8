"""How many inner steps a peer takes, and how long the others wait for it: from measured speeds alone.

Peers are told each other's speed with every commit. Steps in proportion to it let all arrive together (DyLU:
arXiv 2401.09135; FedCompass: arXiv 2309.14675), and a quorum with a grace window ends windows at times that
each peer finds by itself (FedFix: arXiv 2206.10189).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PaceRules:
    """steps: of the fastest peer in a window. dynamic: fewer for slower ones, at least `least`. quorum: a
    window ends once so many peers should be through, and grace_s later; None: once all are."""

    steps: int
    dynamic: bool = False
    least: int = 1
    quorum: int | None = None
    grace_s: float = 0.0

    @property
    def timed(self) -> bool:
        """Whether what a peer does depends on clocks."""
        return self.dynamic or self.quorum is not None

    def steps_at(self, speed: float, speeds: Sequence[float]) -> int:
        """For a peer of that speed, in steps per second; 0: unknown."""
        fastest = max(speeds, default=0.0)
        if not self.dynamic or not speed or not fastest:
            return self.steps
        return min(self.steps, max(self.least, int(self.steps * speed / fastest)))

    def window_s(self, speeds: Sequence[float]) -> float | None:
        """Seconds from the begin of a window to its end; None: when all are through."""
        known = [speed for speed in speeds if speed > 0]
        if self.quorum is None or len(known) < 2:
            return None
        through = sorted(self.steps_at(speed, known) / speed for speed in known)
        return through[min(self.quorum, len(through)) - 1] + self.grace_s


class Pace:
    """Of one peer. `speed`: steps per second while it trains, smoothed over windows; 0 before the first.
    `clock`: seconds."""

    def __init__(self, rules: PaceRules, clock: Callable[[], float] = time.monotonic) -> None:
        self.rules = rules
        self._clock = clock
        self.speed = 0.0
        self.speeds: list[float] = []
        self._began = self._last = clock()
        self._trained_s, self._counted = 0.0, 0

    def begin(self) -> None:
        """A window begins, or goes on after a commit."""
        self._began = self._last = self._clock()

    def step(self) -> None:
        now = self._clock()
        self._trained_s += now - self._last
        self._counted += 1
        self._last = now

    def measure(self) -> float:
        if self._counted and self._trained_s > 0:
            now = self._counted / self._trained_s
            self.speed = _as_sent(now if not self.speed else (self.speed + now) / 2)
            self._trained_s, self._counted = 0.0, 0
        return self.speed

    @property
    def steps(self) -> int:
        return self.rules.steps_at(self.speed, self.speeds)

    @property
    def over(self) -> bool:
        """Whether the others do not wait for this peer any longer. Those of the quorum are waited for, as
        speeds are not exact."""
        limit = self.rules.window_s(self.speeds)
        if limit is None or not self.speed or self.steps / self.speed <= limit:
            return False
        return self._clock() - self._began >= limit


def _as_sent(speed: float) -> float:
    """Of the bits that the others get of it: all shall find the same."""
    return float(struct.unpack("f", struct.pack("f", speed))[0])
