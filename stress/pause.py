"""One peer is stopped, not dead: it is evicted after the heartbeat limit, the others wait without burning
CPU, and it learns of it and comes back."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .latency import summary
from .records import Record
from .report import Report
from .scene import Actor, Hang, Scene
from .steady_group import SteadyGroup, SteadyPlan

# Waiting is free when it costs less than this share of a core.
BUSY_MAX = 0.05


@dataclass(frozen=True, kw_only=True)
class PausePlan(SteadyPlan):
    """`rounds`: how often one is stopped. `after_s`: how long it stays stopped once the others have gone
    on.
    """

    rounds: int
    after_s: float = 0.2


def run_pause(plan: PausePlan, report: Report) -> Report:
    with Scene(report, plan.hang_s, plan.keep) as scene:
        pause = _Pause(plan, scene)
        with suppress(Hang):
            pause.run()
        report.more |= pause.results()
    return report


class _Pause:
    def __init__(self, plan: PausePlan, scene: Scene) -> None:
        self._plan = plan
        self._scene = scene
        self._group = SteadyGroup(scene, plan, "pause")
        self._limits_ms: list[float] = []
        self._busy: list[float] = []
        self._told_ms: list[float] = []
        self._back_ms: list[float] = []
        self._errors: set[str] = set()

    def results(self) -> dict[str, Any]:
        """`evicted_after_ms`: from the stop to the survivors' next all-reduce. `waiting_cpu_percent`: of
        one core, each survivor meanwhile. `told_ms`, `back_ms`: from SIGCONT to the error, and to the first
        result as a member again.
        """
        return {
            "evicted_after_ms": summary(self._limits_ms),
            "waiting_cpu_percent": summary([share * 100 for share in self._busy]),
            "told_ms": summary(self._told_ms),
            "back_ms": summary(self._back_ms),
            "told_by": sorted(self._errors),
        }

    def run(self) -> None:
        self._group.begin()
        for _ in range(self._plan.rounds):
            self._stop_one()
            self._group.calm_down()
        self._scene.end(self._group.on_record)

    def _stop_one(self) -> None:
        scene, group = self._scene, self._group
        victim = group.next_victim(within_s=0.1)
        survivors = [actor for actor in group.well() if actor is not victim]
        stopped = victim.peer
        scene.stop(victim)
        at = time.monotonic()
        group.unsettle()
        scene.run_for(0.2, group.on_record)  # what was under way ends; from here they wait
        began, used = time.monotonic(), [actor.child.cpu_seconds() for actor in survivors]
        scene.run_for(1.0, group.on_record)
        waited = time.monotonic() - began
        busy = [(a.child.cpu_seconds() - before) / waited for a, before in zip(survivors, used, strict=True)]
        self._busy += busy
        if max(busy) > BUSY_MAX:
            scene.report.hang(f"a survivor burns {max(busy):.0%} of a core while it waits for a stopped peer")
        self._wait_for_survivors(survivors, stopped, at)
        scene.run_for(self._plan.after_s, group.on_record)
        self._resume(victim)

    def _wait_for_survivors(self, survivors: list[Actor], stopped: int, at: float) -> None:
        waiting = set(survivors)

        def on_record(actor: Actor, record: Record) -> None:
            self._group.on_record(actor, record)
            if record["what"] == "commit" and actor in waiting and stopped not in record["contributors"]:
                waiting.discard(actor)
                self._limits_ms.append((record["t"] - at) * 1e3)

        self._scene.until(lambda: not waiting, on_record)

    def _resume(self, victim: Actor) -> None:
        resumed = time.monotonic()
        told = back = False

        def on_record(actor: Actor, record: Record) -> None:
            nonlocal told, back
            self._group.on_record(actor, record)
            if actor is not victim:
                return
            if record["what"] == "gone":
                told = True
                self._told_ms.append((record["t"] - resumed) * 1e3)
                self._errors.add(record["error"].partition(":")[0])
            elif record["what"] == "commit" and told:
                back = True
                self._back_ms.append((record["t"] - resumed) * 1e3)

        self._scene.resume(victim)
        self._scene.until(lambda: back, on_record)
