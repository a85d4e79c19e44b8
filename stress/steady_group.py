"""A steady group: peers that reduce the same tensor again and again, one per place, until something happens
to one of them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from .peer import Seat
from .processes import Child
from .records import Record, Writer
from .scene import Actor, Scene
from .steady_peer import SteadyPeer

# Rounds that the whole group has done before it is disturbed again.
CALM_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class SteadyPlan:
    """`size`: bytes that are reduced. `workers`: processes that each peer has forked, and that outlive a
    victim.
    """

    seed: int
    peers: int
    size: int
    workers: int = 0
    hang_s: float = 15.0
    keep: Path | None = None


class SteadyGroup:
    """The peers, what they have done lately, and who of them is next. `draw`: from the plan's seed."""

    def __init__(self, scene: Scene, plan: SteadyPlan, scenario: str) -> None:
        self.scene = scene
        self.draw = random.Random(f"{plan.seed} {scenario}")
        self.operation_s = 0.0
        self._plan = plan
        self._calm: dict[Child, int] = {}  # rounds with the whole group

    def begin(self) -> None:
        for place in range(self._plan.peers):
            self.fill(place, self._plan.peers)
        self.calm_down()

    def fill(self, place: int, wanted: int = 1) -> Actor:
        size, workers = self._plan.size, self._plan.workers

        def main(address: str, out: Writer, lifeline: int) -> None:
            SteadyPeer(Seat(address, min_islands=wanted), out, size, workers, lifeline).run()

        actor = self.scene.start_peer(main, place)
        actor.child.keep_workers = workers > 0
        return actor

    def on_record(self, actor: Actor, record: Record) -> None:
        if record["what"] != "commit":
            return
        whole = len(record["contributors"]) == self._plan.peers
        self._calm[actor.child] = self._calm.get(actor.child, 0) + 1 if whole else 0
        self.operation_s += 0.1 * (record["seconds"] - self.operation_s)

    def well(self) -> list[Actor]:
        return sorted((a for a in self.scene.actors if a.is_well), key=lambda actor: actor.place)

    def next_victim(self, within_s: float) -> Actor:
        """Some time from now, 20 ms at least, any of those that are well."""
        self.scene.run_for(0.02 + self.draw.random() * within_s, self.on_record)
        return self.draw.choice(self.well())

    def unsettle(self) -> None:
        self._calm.clear()

    def calm_down(self) -> None:
        self.scene.until(self._is_calm, self.on_record)

    def _is_calm(self) -> bool:
        well = self.well()
        return len(well) == self._plan.peers and all(self._calm.get(a.child, 0) >= CALM_ROUNDS for a in well)
