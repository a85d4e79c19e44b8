"""Many come to the door at once, and go again together: some leave, some are killed."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..oracles import PEERS_MAX
from ..records import Record
from ..scene import Actor
from .trouble import Trouble

MEMBERS_S = 10.0  # until all that came are members: who never is, breaks this before he counts as hung
STAYS_S = (0.2, 1.5)


class Storms(Trouble):
    name = "storms"
    every_s = 6.0

    def plan(self) -> Callable[[], None]:
        most = min(PEERS_MAX - self.run.places - 1, 8)
        count = self.draw.randint(2, max(2, most))
        stays_s = STAYS_S[0] + (STAYS_S[1] - STAYS_S[0]) * self.draw.random()
        killed = [self.draw.random() < 0.5 for _ in range(count)]
        return lambda: self._come(count, stays_s, killed)

    def _come(self, count: int, stays_s: float, killed: list[bool]) -> None:
        first = self.run.places + 1  # the churn's own place for one more lies between
        places = range(first, first + count)
        if any(self.run.at(place) for place in places):
            return
        self.happened(f"{count} come at once")
        for place in places:
            self.run.fill(place)
        came = [actor for place in places for actor in self.run.at(place)]
        inside: set[Actor] = set()
        for actor in came:
            self._promise(actor, came, inside, stays_s, killed)

    def _promise(
        self, actor: Actor, came: list[Actor], inside: set[Actor], stays_s: float, killed: list[bool]
    ) -> None:
        def kept(who: Actor | None, record: Record) -> bool:
            if who is not actor or record["what"] != "commit":
                return False
            inside.add(actor)
            if len(inside) == len(came):
                self.later(stays_s, lambda: self._go(came, killed))
            return True

        text = f"{actor.child.name} is a member after {len(came)} came at once"
        took = self.measured("member_in_a_storm_ms")
        self.run.promises.make(
            text, time.monotonic(), MEMBERS_S, kept, void=lambda: not actor.child.alive, took_ms=took
        )

    def _go(self, came: list[Actor], killed: list[bool]) -> None:
        scene = self.run.scene
        for actor, dies in zip(came, killed, strict=True):
            if not actor.is_well:
                continue
            if dies:
                scene.kill(actor)
            else:
                scene.report.leaves += 1
                scene.leave(actor)
