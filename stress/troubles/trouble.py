"""What all troubles share: the run that they happen to, and who must go on."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, Protocol

from ..latency import summary
from ..promises import Promises
from ..records import Record
from ..scene import Actor, Scene
from ..timetable import Timetable

LIMIT_S = 2.0  # of heartbeats, by default: who is silent for so long is lost
TAKEN_S, LOOK_S = 30.0, 0.1  # so long a victim is waited for, and looked for so often
AGAIN_S = 12.0  # from when nothing keeps it from coming back until a peer that was evicted is a member


class Run(Protocol):
    """`places`: that are always filled; troubles may fill more. `seed` replays everything."""

    scene: Scene
    timetable: Timetable
    promises: Promises
    seed: int
    sabotage: str | None

    @property
    def places(self) -> int: ...
    def at(self, place: int) -> list[Actor]: ...
    def may_take(self, place: int) -> bool: ...
    def fill(self, place: int) -> None: ...


class Trouble:
    """`every_s`: about so long from one to the next."""

    name = ""
    every_s = 4.0

    def __init__(self, run: Run) -> None:
        self.run = run
        self.draw = random.Random(f"{run.seed} {self.name}")
        self.count = self._planned = 0
        self.samples: dict[str, list[float]] = {}

    def begin(self, began: float, seconds: float) -> None:
        """Notes all that will happen. Every draw is made here, whatever the run does."""
        for at_s in self._times(seconds):
            self.run.timetable.at(began + at_s, self.plan())
            self._planned += 1

    def plan(self) -> Callable[[], None]:
        """One of them, drawn; called when it is due."""
        raise NotImplementedError

    def end(self) -> None:
        """Everything is as before; the peers leave now."""

    @property
    def over(self) -> bool:
        """After end(): nothing of it goes on; asked until it is so."""
        return True

    def close(self) -> None:
        """After the run, whatever became of it."""

    def results(self) -> dict[str, Any]:
        return {self.name: self.count} | {name: summary(list_) for name, list_ in self.samples.items()}

    def measured(self, name: str) -> list[float]:
        """Milliseconds, for the report."""
        return self.samples.setdefault(name, [])

    def happened(self, text: str) -> None:
        self.count += 1
        self.run.scene.happened(text, sort=self.name)

    def first(self) -> bool:
        """Whether it is the first that is planned."""
        return self._planned == 0

    def order(self) -> list[int]:
        """Places in a random order."""
        return self.draw.sample(range(self.run.places), self.run.places)

    def victim(self, order: list[int]) -> Actor | None:
        """The first that is well and that the others can do without."""
        for place in order:
            for actor in self.run.at(place):
                if actor.is_well and self.run.may_take(place):
                    return actor
        return None

    def take(self, order: list[int], then: Callable[[Actor], None]) -> None:
        """Calls `then` with the victim, as soon as there is one: after other troubles, or on a busy machine,
        all may be down for a while."""
        self._take(order, then, time.monotonic() + TAKEN_S)

    def _take(self, order: list[int], then: Callable[[Actor], None], gives_up: float) -> None:
        actor = self.victim(order)
        if actor is not None:
            then(actor)
        elif time.monotonic() < gives_up:
            self.later(LOOK_S, lambda: self._take(order, then, gives_up))

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self.run.timetable.at(time.monotonic() + seconds, action)

    def _times(self, seconds: float) -> Iterator[float]:
        at_s = min(min(1.0, seconds / 4) + self.draw.random() * self.every_s / 2, seconds / 2)  # one at least
        while at_s <= max(seconds - 1.0, seconds / 2):
            yield at_s
            at_s += self.every_s * (0.5 + self.draw.random())

    # ---- promises ----

    def all_go_on(
        self,
        why: str,
        within_s: float,
        *,
        without: int | None = None,
        but: Collection[Actor] = (),
        took_ms: list[float] | None = None,
    ) -> None:
        """Each that is well now has a result within that time. `without`: one that this peer is not in."""
        now = time.monotonic()
        for actor in [a for a in self.run.scene.actors if a.is_well and a not in but]:
            self.run.promises.make(
                f"{actor.child.name} has a result {why}",
                now,
                within_s,
                _commits(actor, without),
                void=_not_well(actor),
                took_ms=took_ms,
            )

    def comes_back(self, actor: Actor, why: str, took_ms: list[float] | None = None) -> None:
        """It has been evicted, or will learn of it: it is a member again, and has a result. One that ends by
        itself does not come back."""

        def void() -> bool:
            return actor.child.killed_at is not None or actor.leaving

        now = time.monotonic()
        text = f"{actor.child.name} is a member again {why}"
        self.run.promises.make(text, now, AGAIN_S, _commits(actor), void=void, took_ms=took_ms)


def _commits(actor: Actor, without: int | None = None) -> Callable[[Actor | None, Record], bool]:
    def kept(who: Actor | None, record: Record) -> bool:
        return who is actor and record["what"] == "commit" and without not in record["contributors"]

    return kept


def _not_well(actor: Actor) -> Callable[[], bool]:
    """Something else happened to it."""
    peer = actor.peer
    return lambda: not actor.is_well or actor.peer != peer
