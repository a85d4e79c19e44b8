"""What must happen within a time after something was done to the run: the oracle of progress.

A promise is kept by a record that a peer says, or void when what it spoke of is gone; broken is what is
neither when its time is over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .records import Record
from .starvation import excused_s

if TYPE_CHECKING:
    from .processes import Child
    from .scene import Actor

# Who said it: a peer, or another process of the run.
Kept = Callable[["Actor | Child", Record], bool]


@dataclass(eq=False)
class Promise:
    text: str
    made: float
    until: float
    kept: Kept
    void: Callable[[], bool]
    took_ms: list[float] | None


class Promises:
    """`patience`: every time is so much longer; for runs in which everything happens at once. `starved`: how
    long a process had to wait for a core since a moment; that much more time it has."""

    def __init__(
        self,
        broken: Callable[[str], None],
        patience: float = 0.0,
        starved: Callable[[float], float] = lambda since: 0.0,
    ) -> None:
        self._broken = broken
        self._patience = patience
        self._starved = starved
        self._open: list[Promise] = []
        self.kept = self.void = 0

    def make(
        self,
        text: str,
        now: float,
        within_s: float,
        kept: Kept,
        *,
        void: Callable[[], bool] = lambda: False,
        took_ms: list[float] | None = None,
    ) -> Promise:
        """`kept` is asked about each record of a later time; `took_ms` takes the time until then."""
        made = Promise(text, now, now + within_s + self._patience, kept, void, took_ms)
        self._open.append(made)
        return made

    def awaits(self, promise: Promise) -> bool:
        """It is neither kept nor broken nor void yet."""
        return promise in self._open

    def on_record(self, who: Actor | Child, record: Record) -> None:
        for promise in [p for p in self._open if record["t"] > p.made and p.kept(who, record)]:
            self._open.remove(promise)
            if self._is_broken(promise, record["t"]):
                self._tell(promise, record["t"])
                continue
            self.kept += 1
            if promise.took_ms is not None:
                promise.took_ms.append((record["t"] - promise.made) * 1e3)

    def check(self, now: float) -> None:
        for promise in list(self._open):
            if promise.void():
                self._open.remove(promise)
                self.void += 1
            elif self._is_broken(promise, now):
                self._open.remove(promise)
                self._tell(promise, now)

    @property
    def open(self) -> bool:
        return bool(self._open)

    def _is_broken(self, promise: Promise, now: float) -> bool:
        if now <= promise.until:
            return False
        limit_s = promise.until - promise.made
        return now > promise.until + excused_s(self._starved(promise.made), limit_s)

    def _tell(self, promise: Promise, now: float) -> None:
        limit, starved = promise.until - promise.made, self._starved(promise.made)
        waited = f", {starved:.1f} of them for a core" if starved > 0.1 else ""
        self._broken(f"{promise.text} within {limit:.1f} s; it has been {now - promise.made:.1f} s{waited}")
