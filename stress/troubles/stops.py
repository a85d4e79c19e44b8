"""Peers that are stopped (SIGSTOP) and go on: shortly, which delays the others, and for longer than the
heartbeat limit, which the others do not wait for."""

from __future__ import annotations

from collections.abc import Callable

from ..scene import Actor
from .trouble import LIMIT_S, Trouble

SHORT_S, LONG_S = (0.02, 0.8), (2.6, 3.6)


class Stops(Trouble):
    name = "stops"
    every_s = 3.0

    def plan(self) -> Callable[[], None]:
        long, order = self.draw.random() < 0.5, self.order()
        low, high = LONG_S if long else SHORT_S
        lasts_s = low + (high - low) * self.draw.random()
        return lambda: self.take(order, lambda actor: self._stop(actor, lasts_s))

    def _stop(self, actor: Actor, lasts_s: float) -> None:
        scene = self.run.scene
        self.happened(f"{actor.child.name} is stopped for {lasts_s:.2f} s")
        scene.stop(actor)
        long = lasts_s > LIMIT_S
        took = self.measured("others_go_on_after_a_stop_ms") if long else None
        without = actor.peer if long else None
        self.all_go_on("after another was stopped", LIMIT_S + 1.5, without=without, but=[actor], took_ms=took)
        self.later(lasts_s, lambda: self._resume(actor, long))

    def _resume(self, actor: Actor, long: bool) -> None:
        if not actor.child.alive or not actor.child.stopped:
            return
        self.run.scene.resume(actor)
        took = self.measured("stopped_is_back_ms") if long else None
        self.comes_back(actor, "after SIGCONT", took)
