"""How long a kill -9 interrupts the others: a steady group, one victim at a time, a replacement after
each.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from .records import Record
from .report import Report
from .scene import Actor, Hang, Scene
from .steady_group import SteadyGroup, SteadyPlan


@dataclass(frozen=True, kw_only=True)
class RecoveryPlan(SteadyPlan):
    """`kills`: how often one is killed."""

    kills: int


def run_recovery(plan: RecoveryPlan, report: Report) -> Report:
    with Scene(report, plan.hang_s, plan.keep) as scene:
        group = SteadyGroup(scene, plan, "recovery")
        with suppress(Hang):
            group.begin()
            for _ in range(plan.kills):
                _kill_one(scene, group)
            scene.end(group.on_record)
        report.more["bytes"] = plan.size
        report.more["workers_per_peer"] = plan.workers
        report.more["operation_ms"] = round(group.operation_s * 1e3, 3)
    return report


def _kill_one(scene: Scene, group: SteadyGroup) -> None:
    victim = group.next_victim(within_s=0.06)
    _wait_for_start(scene, group, victim)
    # Anywhere in the operation, and somewhat beyond it.
    time.sleep(group.draw.random() * 1.2 * group.operation_s)
    scene.kill(victim)
    group.unsettle()
    scene.until(lambda: scene.recovery.outstanding == 0, group.on_record)
    scene.fleet.end_workers(victim.child)
    group.fill(victim.place)
    group.calm_down()


def _wait_for_start(scene: Scene, group: SteadyGroup, victim: Actor) -> None:
    started = False

    def on_record(actor: Actor, record: Record) -> None:
        nonlocal started
        started |= actor is victim and record["what"] == "start"
        group.on_record(actor, record)

    scene.until(lambda: started, on_record)
