"""Networks that fall apart and heal: one host cut off from all, links cut in one direction or both."""

from __future__ import annotations

from collections.abc import Callable

from ..house import Network
from ..scene import Actor
from .trouble import LIMIT_S, Trouble

HEALED_S = 12.0  # until all go on after a cut


class Cuts(Trouble):
    name = "cuts"
    every_s = 7.0

    def plan(self) -> Callable[[], None]:
        order, kind = self.order(), self.draw.random()
        if self.first():
            kind = 0.0  # however short a run: somebody is cut off for so long that the others go on without
        lasts_s = 0.3 + 4.2 * self.draw.random()
        if kind < 0.45:
            return lambda: self.take(order, lambda actor: self._isolate(actor, LIMIT_S + 0.6 + lasts_s / 3))
        if kind < 0.65:
            return lambda: self.take(order, lambda actor: self._isolate(actor, 0.1 + lasts_s / 4))
        return lambda: self._cut_link(order[0], order[1], lasts_s, one_way=kind < 0.85)

    @property
    def _house(self) -> Network:
        house = self.run.scene.house
        assert isinstance(house, Network)
        return house

    def _isolate(self, actor: Actor, lasts_s: float) -> None:
        self.happened(f"{actor.child.name} is cut off for {lasts_s:.2f} s")
        self._house.net.isolate(actor.place)
        self.run.scene.cut_off(actor)
        long = lasts_s > LIMIT_S
        took = self.measured("others_go_on_after_a_cut_ms") if long else None
        without = actor.peer if long else None
        self.all_go_on("after another was cut off", LIMIT_S + 2.0, without=without, took_ms=took)
        self.later(lasts_s, lambda: self._reconnect(actor, long))

    def _reconnect(self, actor: Actor, long: bool) -> None:
        if self.run.sabotage != "dark":
            self._house.net.reconnect(actor.place)
        self.run.scene.reconnected(actor)
        self.comes_back(actor, "after it was cut off", self.measured("cut_off_is_back_ms") if long else None)

    def _cut_link(self, a: int, b: int, lasts_s: float, one_way: bool) -> None:
        actors = [*self.run.at(a), *self.run.at(b)]
        if not all(actor.is_well for actor in actors) or not self.run.may_take(a):
            return
        self.happened(
            f"the link from place {a} to {b} is cut{'' if one_way else ' both ways'}, {lasts_s:.2f} s"
        )
        self._house.net.cut(a, b, one_way=one_way)
        for actor in actors:
            self.run.scene.disturb(actor)  # one of the two may have to go
        self.later(lasts_s, lambda: self._restore(actors, a, b, one_way))

    def _restore(self, actors: list[Actor], a: int, b: int, one_way: bool) -> None:
        self._house.net.restore(a, b, one_way=one_way)
        for actor in actors:
            self.run.scene.excuse(actor)
            self.comes_back(actor, "after its link was cut")
        self.all_go_on("after a link was cut", HEALED_S, but=actors)

    def end(self) -> None:
        self._house.net.heal()
