"""Peers that are killed, stopped, told to leave and started while they reduce, at times drawn from a seed."""

from __future__ import annotations

import random
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from .churn_peer import OF_ALL, ChurnOptions, ChurnPeer
from .faults import Fault, plan_faults
from .house import House
from .ledger import Key, Ledger
from .peer import Seat
from .processes import Child
from .promises import Promises
from .records import Record, Writer
from .report import Report
from .revisions import Revisions
from .scene import Actor, Hang, Scene
from .timetable import Timetable
from .troubles.trouble import Trouble
from .windows import Limits

# An operation is compared across peers when it is so old: by then everybody has told about it.
CLOSE_AFTER_S = 12.0
# A kill that waits for its victim's next operations gives up waiting then.
ARMED_S = 0.3
# Kills that found nobody to hit are tried again so often.
LATER_S = 0.05


@dataclass(frozen=True)
class ChurnPlan:
    """`peers` in `groups`, or `islands` of `ranks` each; one more place than that is filled now and then.

    calm       nobody is killed, stopped or told to leave but by `troubles`
    troubles   what else happens; `house` is where. `stored`: the master keeps its views in a folder
    patience   every promise has so many seconds more
    """

    seed: int
    seconds: float
    peers: int
    kills: int
    limits: Limits
    groups: int = 1
    ranks: int = 1
    hang_s: float = 15.0
    keep: Path | None = None
    sabotage: str | None = None
    transport: str = "auto"
    calm: bool = False
    troubles: tuple[type[Trouble], ...] = ()
    house: House = field(default_factory=House)
    stored: bool = False
    patience: float = 0.0

    @property
    def islands(self) -> int:
        return self.peers // self.ranks


@dataclass
class _Armed:
    """A kill that waits for the victim to start operations."""

    fault: Fault
    actor: Actor
    gives_up: float
    at: float | None = None


def run_churn(plan: ChurnPlan, report: Report) -> Report:
    more = {"house": plan.house, "stored": plan.stored, "seconds": plan.seconds}
    with Scene(report, plan.hang_s, plan.keep, **more) as scene, ExitStack() as exit_:
        churn = Churn(plan, scene)
        exit_.callback(churn.close)
        churn.to_its_end()
        report.more |= churn.results()
        for text in scene.history.resources.leaks():
            report.leak(text)
    return report


class Churn:
    def __init__(self, plan: ChurnPlan, scene: Scene) -> None:
        self._plan = plan
        self.scene = scene
        self.timetable = Timetable()
        self.promises = Promises(scene.report.broken, plan.patience, scene.starvation.since)
        self.seed, self.sabotage, self.places = plan.seed, plan.sabotage, plan.islands
        self._ledger = Ledger(lambda peer: scene.member_since.get(peer, 0.0))
        self._revisions = Revisions()
        self._faults = [] if plan.calm else plan_faults(plan.seed, plan.seconds, plan.kills, plan.islands + 1)
        self._armed: list[_Armed] = []
        self._postponed: deque[Fault] = deque()  # kills: too few would have been left
        self._again_at = 0.0
        self._resume_at: dict[Actor, float] = {}
        self._fill_at: dict[tuple[int, int], float] = {}  # (place, rank) -> when
        self._generation = 0
        self._window_s = 0.01
        self._started_at: dict[Child, float] = {}
        self._closed_at = time.monotonic()
        self._troubles = [kind(self) for kind in plan.troubles]

    def to_its_end(self) -> None:
        """Also to a hang: what the peers said last was not heard by then, and is held against nobody."""
        try:
            self.run()
        except Hang as hang:
            self.promises.check(hang.at)  # one that was broken before is told of, too
            self._close_what_is_old(hang.at)
        else:
            self.close_ledger(float("inf"))

    def run(self) -> None:
        scene, plan = self.scene, self._plan
        for place in range(plan.islands):
            self.fill(place)
        scene.until(lambda: sum(a.is_well for a in scene.actors) >= plan.peers, self._on_record)
        began = time.monotonic()
        over = began + plan.seconds
        for trouble in self._troubles:
            trouble.begin(began, plan.seconds)
        while (now := time.monotonic()) < over or self._goes_on(now < over + plan.seconds / 2):
            for actor, record in scene.poll(min(0.02, self._next_due(began) - now)):
                self._on_record(actor, record)
            self._act(began, time.monotonic())
        for trouble in self._troubles:
            trouble.end()
        scene.until(lambda: all(trouble.over for trouble in self._troubles), self._on_record)
        for actor in scene.actors:
            scene.resume(actor)
        scene.run_for(min(1.0, plan.seconds / 4), self._on_record)  # newcomers come in, then all leave
        now = time.monotonic()
        self.close_ledger(now - 5 - scene.starvation.since(now - CLOSE_AFTER_S))
        scene.end(self._on_record)

    def _goes_on(self, faults_may: bool) -> bool:
        """Whether something that was begun is not over."""
        return (
            bool((self._faults or self._postponed) and faults_may)
            or self.timetable.due() < float("inf")
            or self.promises.open
        )

    def close(self) -> None:
        for trouble in self._troubles:
            trouble.close()

    def results(self) -> dict[str, object]:
        found: dict[str, object] = {"promises_kept": self.promises.kept} if self._troubles else {}
        for trouble in self._troubles:
            found |= trouble.results()
        return found

    # ---- who sits where ----

    def fill(self, place: int) -> None:
        for rank in range(self._plan.ranks):
            self._fill_rank(place, rank)

    def _fill_rank(self, place: int, rank: int) -> None:
        plan = self._plan
        self._generation += 1
        several = plan.ranks > 1
        group = rank if several else place % plan.groups
        island = f"island{place}" if several else None
        options = ChurnOptions(
            plan.seed,
            own=f"{plan.seed} peer {self._generation}",
            limits=plan.limits,
            sabotage=plan.sabotage if self._generation == 2 or plan.sabotage in OF_ALL else None,
            extra=place > plan.islands,
        )
        wanted = plan.islands if self._generation <= plan.peers else 1

        transport, insecure = plan.house.transport(plan.transport), plan.house.insecure
        if transport == "mixed":
            transport = random.Random(options.own).choice(["auto", "tcp", "shm", "cma"])

        def main(address: str, out: Writer, lifeline: int) -> None:
            ChurnPeer(
                Seat(address, island, plan.ranks, group, wanted, transport, insecure), out, options
            ).run()

        self.scene.start_peer(main, place, group, island)

    def at(self, place: int) -> list[Actor]:
        return [actor for actor in self.scene.actors if actor.place == place]

    def may_take(self, place: int) -> bool:
        """Whether others remain that are well, so that there is somebody to survive."""
        doomed = [armed.actor for armed in self._armed]
        well = [a for a in self.scene.actors if a.is_well and a not in doomed]
        others = {a.place for a in well if a.place != place}
        if self._plan.ranks > 1:
            others = {p for p in others if sum(a.place == p for a in well) == self._plan.ranks}
        needed = 2 if self._plan.groups == 1 and self._plan.islands > 2 else 1
        return len(others) >= needed

    # ---- faults ----

    def _next_due(self, began: float) -> float:
        due = [armed.gives_up if armed.at is None else armed.at for armed in self._armed]
        due += [self.timetable.due(), *self._resume_at.values(), *self._fill_at.values()]
        if self._faults:
            due.append(began + self._faults[0].at_s)
        if self._postponed:
            due.append(self._again_at)
        return min(due, default=float("inf"))

    def _act(self, began: float, now: float) -> None:
        for armed in [a for a in self._armed if (a.gives_up if a.at is None else a.at) <= now]:
            self._armed.remove(armed)
            self._kill(armed.fault, armed.actor)
        for actor in [a for a, at in self._resume_at.items() if at <= now]:
            del self._resume_at[actor]
            self.scene.resume(actor)
        for place, rank in [seat for seat, at in self._fill_at.items() if at <= now]:
            del self._fill_at[place, rank]
            self._fill_rank(place, rank)
        self.timetable.act(now)
        self.promises.check(now)
        while self._faults and began + self._faults[0].at_s <= now:
            self._begin(self._faults.pop(0), now)
        self._make_up(now)
        if now > self._closed_at + 1:
            self._closed_at = now
            self._close_what_is_old(now)
            self.scene.joins.settle(now - 1)

    def _begin(self, fault: Fault, now: float) -> None:
        if not self._try(fault, now) and fault.kind == "kill":
            self._postponed.append(fault)

    def _make_up(self, now: float) -> None:
        """As many of the postponed kills as find a victim. The first that does not speaks for all: a run that
        is far behind its schedule must not look for each of thousands."""
        if now < self._again_at:
            return
        self._again_at = now + LATER_S
        while self._postponed and self._try(self._postponed[0], now):
            self._postponed.popleft()

    def _try(self, fault: Fault, now: float) -> bool:
        """False: there is nobody whom it may hit."""
        for place in fault.order:
            if fault.kind == "join":
                vacant = not self.at(place) and not any(seat[0] == place for seat in self._fill_at)
                if vacant:
                    self.fill(place)
                    return True
                continue
            targets = [
                a
                for a in self.at(place)
                if a.child.killed_at is None and not a.child.stopped and not a.leaving
            ]
            targets = [a for a in targets if all(armed.actor is not a for armed in self._armed)]
            if targets and self.may_take(place):
                self._hit(fault, targets[int(fault.lasts_s * 1e6) % len(targets)], now)
                return True
        return False

    def _hit(self, fault: Fault, actor: Actor, now: float) -> None:
        scene = self.scene
        if fault.kind == "kill" and fault.after_operation is not None and actor.is_well:
            self._armed.append(_Armed(fault, actor, now + ARMED_S))
        elif fault.kind == "kill":
            self._kill(fault, actor)
        elif fault.kind == "leave":
            scene.report.leaves += 1
            scene.leave(actor)
            self._replace(fault, actor)
        elif actor.stage == "member":
            scene.stop(actor)
            self._resume_at[actor] = now + fault.lasts_s

    def _kill(self, fault: Fault, actor: Actor) -> None:
        if actor.child.alive and actor.child.killed_at is None:
            self.scene.kill(actor)
            self._replace(fault, actor)

    def _replace(self, fault: Fault, actor: Actor) -> None:
        """Unless it was the one more than usual."""
        places = {a.place for a in self.scene.actors if a.child.killed_at is None and not a.leaving}
        places |= {place for place, _ in self._fill_at}
        if self._plan.ranks > 1 or len(places) < self._plan.islands:
            rank = actor.group if self._plan.ranks > 1 else 0
            self._fill_at[actor.place, rank] = time.monotonic() + fault.replaced_s

    # ---- what peers say ----

    def _on_record(self, actor: Actor, record: Record) -> None:
        what = record["what"]
        self.promises.on_record(actor, record)
        if what in ("commit", "synced"):
            key = self._key(actor, record)
            contributors = tuple(record["contributors"])
            faults = self._ledger.commit(
                key, actor.peer, contributors, record["digest"], record["t"], self._is_gone
            )
            self._wrong(faults + self._revisions.synced(actor.peer, record))
        elif what == "kept":
            self._revisions.kept(record["revision"])
        elif what == "failed" and not record["error"].startswith(
            ("Evicted", "OutcomeUnknown", "ClosedError")
        ):
            key = self._key(actor, record)
            self._wrong(self._ledger.fail(key, actor.peer, record["t"], self._is_gone))
        elif what == "start":
            self._note_start(actor, record["t"])

    def _key(self, actor: Actor, record: Record) -> Key:
        window, slot, scope, retry = record["key"]
        return Key(window, slot, scope, retry, actor.group)

    def _note_start(self, actor: Actor, at: float) -> None:
        before = self._started_at.get(actor.child, at)
        self._started_at[actor.child] = at
        if 0 < at - before < 1:
            self._window_s += 0.05 * (at - before - self._window_s)
        for armed in self._armed:
            if armed.actor is actor and armed.at is None and armed.fault.after_operation is not None:
                armed.at = at + armed.fault.after_operation * self._window_s

    def _close_what_is_old(self, now: float) -> None:
        self.close_ledger(now - CLOSE_AFTER_S - self.scene.starvation.since(now - CLOSE_AFTER_S))

    def close_ledger(self, before: float) -> None:
        scene = self.scene

        def must_have(peer: int) -> bool:
            actor = scene.actor_of.get(peer)
            return actor is not None and actor.peer == peer and actor.child.alive and not actor.disturbed

        self._wrong(self._ledger.close(before, scene.island_of.get, must_have))

    def _is_gone(self, peer: int) -> bool:
        actor = self.scene.actor_of.get(peer)
        return (
            actor is None
            or actor.peer != peer
            or actor.stage != "member"
            or actor.child.killed_at is not None
        )

    def _wrong(self, faults: list[str]) -> None:
        for fault in faults:
            self.scene.report.wrong(f"{fault}; {self._places()}")

    def _places(self) -> str:
        return ", ".join(f"{a.child.name} is peer {a.peer}" for a in self.scene.actors)
