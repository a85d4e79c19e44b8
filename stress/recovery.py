"""How long a kill -9 interrupts the others: a steady group, one victim at a time, a replacement after
each.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

from .peer import Seat
from .processes import Child
from .records import Record, Writer
from .report import Report
from .scene import Actor, Hang, Scene
from .steady_peer import SteadyPeer

# Rounds that the whole group has done before the next kill.
CALM_ROUNDS = 3


@dataclass(frozen=True)
class RecoveryPlan:
    """`size`: bytes that are reduced. `workers`: processes that each peer has forked, and that outlive a
    victim.
    """

    seed: int
    kills: int
    peers: int
    size: int
    workers: int = 0
    hang_s: float = 15.0
    keep: Path | None = None


def run_recovery(plan: RecoveryPlan, report: Report) -> Report:
    with Scene(report, plan.hang_s, plan.keep) as scene:
        trial = _Recovery(plan, scene)
        try:
            trial.run()
        except Hang:
            pass
        report.more["bytes"] = plan.size
        report.more["workers_per_peer"] = plan.workers
        report.more["operation_ms"] = round(trial.operation_s * 1e3, 3)
    return report


class SteadyGroup:
    """Steady peers, one per place, and what they have done lately."""

    def __init__(self, scene: Scene, peers: int, size: int, workers: int) -> None:
        self.scene = scene
        self._peers, self._size, self._workers = peers, size, workers
        self._calm: dict[Child, int] = {}  # rounds with the whole group
        self.operation_s = 0.0

    def fill(self, place: int, wanted: int = 1) -> Actor:
        size, workers = self._size, self._workers

        def main(address: str, out: Writer, lifeline: int) -> None:
            SteadyPeer(Seat(address, min_islands=wanted), out, size, workers, lifeline).run()

        actor = self.scene.start_peer(main, place)
        actor.child.keep_workers = workers > 0
        return actor

    def on_record(self, actor: Actor, record: Record) -> None:
        if record["what"] != "commit":
            return
        whole = len(record["contributors"]) == self._peers
        self._calm[actor.child] = self._calm.get(actor.child, 0) + 1 if whole else 0
        self.operation_s += 0.1 * (record["seconds"] - self.operation_s)

    def is_calm(self) -> bool:
        well = [actor for actor in self.scene.actors if actor.is_well]
        return len(well) == self._peers and all(self._calm.get(a.child, 0) >= CALM_ROUNDS for a in well)

    def unsettle(self) -> None:
        self._calm.clear()


class _Recovery:
    def __init__(self, plan: RecoveryPlan, scene: Scene) -> None:
        self._plan = plan
        self._scene = scene
        self._group = SteadyGroup(scene, plan.peers, plan.size, plan.workers)
        self._draw = random.Random(f"{plan.seed} recovery")

    @property
    def operation_s(self) -> float:
        return self._group.operation_s

    def run(self) -> None:
        scene, group = self._scene, self._group
        for place in range(self._plan.peers):
            group.fill(place, self._plan.peers)
        scene.until(group.is_calm, group.on_record)
        for _ in range(self._plan.kills):
            self._kill_one()
        scene.end(group.on_record)

    def _kill_one(self) -> None:
        scene, group = self._scene, self._group
        scene.run_for(0.02 + self._draw.random() * 0.06, group.on_record)
        well = sorted((a for a in scene.actors if a.is_well), key=lambda actor: actor.place)
        victim = self._draw.choice(well)
        self._wait_for_start(victim)
        # Anywhere in the operation, and somewhat beyond it.
        time.sleep(self._draw.random() * 1.2 * group.operation_s)
        scene.kill(victim)
        group.unsettle()
        scene.until(lambda: scene.recovery.outstanding == 0, group.on_record)
        scene.fleet.end_workers(victim.child)
        group.fill(victim.place)
        scene.until(group.is_calm, group.on_record)

    def _wait_for_start(self, victim: Actor) -> None:
        started = False

        def on_record(actor: Actor, record: Record) -> None:
            nonlocal started
            started |= actor is victim and record["what"] == "start"
            self._group.on_record(actor, record)

        self._scene.until(lambda: started, on_record)
