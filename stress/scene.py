"""What every scenario needs: a master, peers in processes, their records, and an eye on deaths and hangs."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from . import clock
from .history import Event, History
from .house import House
from .latency import Joins, Recovery, summary
from .master_seat import MasterSeat
from .processes import Child, Fleet, dump_stacks
from .records import Record, Writer
from .report import Report
from .starvation import EXCUSED_TIMES, Starvation, excused_s

Stage = Literal["joining", "member", "gone", "left"]
PeerMain = Callable[[str, Writer, int], None]  # address of the master, writer, lifeline
Heard = Callable[[Child, Record], None]


# News of a stop, or of the loss of a mate, may take the heartbeat limit and some more.
EXCUSED_S = 6.0


class Hang(Exception):
    """Some peer makes no progress: the run cannot go on. `at`: when that was seen."""

    def __init__(self, at: float) -> None:
        super().__init__(at)
        self.at = at


@dataclass(eq=False)
class Actor:
    """A peer process as the orchestrator sees it. `place`: which seat of the run it fills. `excused_until`:
    it may be evicted, since it was stopped or a mate of its island went. `disturbed`: it has not been well
    all along.
    """

    child: Child
    place: int
    group: int
    island: str | None
    peer: int = 0
    stage: Stage = "joining"
    progress: float = 0.0
    excused_until: float = 0.0
    disturbed: bool = False
    leaving: bool = False
    cut_off: bool = False

    @property
    def is_well(self) -> bool:
        """A member that nobody has stopped, cut off, killed or asked to leave."""
        child = self.child
        well = child.alive and child.killed_at is None and not child.stopped and not self.cut_off
        return well and self.stage == "member" and not self.leaving


class Scene:
    """Use as a context manager. `hang_s`: no progress of a peer for so long is a hang. `keep`: a folder
    where all logs stay; the report then tells everything that happened. `stored`: the master keeps its views
    in a folder. `seconds`: about how long it will take."""

    def __init__(
        self,
        report: Report,
        hang_s: float,
        keep: Path | None = None,
        *,
        house: House | None = None,
        stored: bool = False,
        seconds: float = 60.0,
    ) -> None:
        self.keep = keep
        self.house = house or House()
        self._stored = stored
        self._seconds = seconds
        self._others: dict[Child, Heard] = {}
        self.report = report
        self.hang_s = hang_s
        self.recovery = Recovery()
        self.joins = Joins()
        self.starvation = Starvation(60.0 + (1 + EXCUSED_TIMES) * hang_s)
        self.actors: list[Actor] = []
        self.island_of: dict[int, str] = {}
        self.actor_of: dict[int, Actor] = {}
        self.member_since: dict[int, float] = {}
        self._trouble: dict[str, float] = {}  # island -> when one of its ranks last went or was stopped
        self.overlooked: set[int] = set()  # and whose are not, for now: what they hold is no measure
        self.watched: dict[int, str] = {}  # others whose memory and descriptors are looked at: names by pid
        self.timeline: list[tuple[float, str]] = []
        self._names = 0
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        folder = self.keep or Path(tempfile.mkdtemp(prefix="stress-"))
        folder.mkdir(parents=True, exist_ok=True)
        if self.keep is None:
            self._exit.callback(shutil.rmtree, folder, ignore_errors=True)
        self.history = self.report.history = History(self.began, self._seconds)
        self._exit.enter_context(self.house)
        self.fleet = self._exit.enter_context(Fleet(folder))
        try:
            views = folder / "views" if self._stored else None
            self._master = MasterSeat(self.fleet, self.house, views)
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        report = self.report
        report.seconds = round(time.monotonic() - self.began, 2)
        self.joins.settle(time.monotonic())
        report.recovery_ms = summary(self.recovery.samples_ms)
        report.join_ms = {
            "boundary": summary(self.joins.boundary_ms),
            "connect": summary(self.joins.connect_ms),
        }
        if self.keep:
            report.note(f"--- what happened\n{self._timeline_text()}")
        if self.keep or not report.faultless:
            report.note(f"--- log of the master\n{self._master.child.log_tail(400 if self.keep else 40)}")
        self._exit.close()

    def _timeline_text(self) -> str:
        begin = self.began
        return "\n".join(f"{(at - begin) * 1e3:8.0f} ms  {text}" for at, text in sorted(self.timeline))

    @property
    def master_address(self) -> str:
        return self._master.address

    @property
    def master_away(self) -> bool:
        return self._master.away

    def kill_master(self) -> None:
        """It is dead when this returns."""
        self._master.kill()
        self.recovery.interrupted()

    def start_master(self) -> None:
        """Another one at the same address."""
        self._master.start_again()
        self.happened("the master is started again", sort="master_kills")

    # ---- peers ----

    def start_other(self, name: str, main: Callable[[Writer], None], heard: Heard) -> Child:
        """A process that is no peer; `heard` is told what it says, and its exit."""
        child = self.fleet.start(name, lambda out, line: main(out))
        self._others[child] = heard
        return child

    def start_peer(self, main: PeerMain, place: int, group: int = 0, island: str | None = None) -> Actor:
        address, house = self._master.address, self.house

        def begin(out: Writer, lifeline: int) -> None:
            house.enter(place)
            clock.take(clock.slot_of(place))
            main(address, out, lifeline)

        self._names += 1
        child = self.fleet.start(f"peer{self._names}-place{place}", begin)
        actor = Actor(child, place, group, island, progress=child.started)
        self.actors.append(actor)
        self.happened(f"{child.name} starts", child.started)
        self.report.joins += 1
        return actor

    def kill(self, actor: Actor) -> None:
        member = actor.stage == "member"
        survivors = [a for a in self.actors if a.is_well and a is not actor and a.group == actor.group]
        at = self.fleet.kill(actor.child)
        self.report.kills += 1
        self.happened(f"SIGKILL {actor.child.name}, peer {actor.peer} ({actor.stage})", at, "kills")
        # Where a peer is stopped, the others wait for it and not for the victim.
        held_up = self.master_away or any(a.child.stopped or a.cut_off for a in self.actors)
        if member and not held_up:
            self.recovery.killed(
                actor.peer, at, [a.child.pid for a in survivors if a.island != actor.island or not a.island]
            )
        self.disturb(actor)

    def stop(self, actor: Actor) -> None:
        at = self.fleet.stop(actor.child)
        self.recovery.interrupted()
        self.report.pauses += 1
        self.happened(f"SIGSTOP {actor.child.name}, peer {actor.peer}", at, "stops")
        self.disturb(actor)

    def cut_off(self, actor: Actor) -> None:
        """From all others, by its network."""
        actor.cut_off = True
        self.recovery.interrupted()
        self.disturb(actor)

    def reconnected(self, actor: Actor) -> None:
        actor.cut_off = False
        actor.progress = time.monotonic()
        self.excuse(actor)

    def excuse(self, actor: Actor) -> None:
        """It may have been evicted meanwhile, or is soon."""
        actor.excused_until = time.monotonic() + EXCUSED_S

    def resume(self, actor: Actor) -> None:
        if actor.child.alive and actor.child.stopped:
            self.fleet.resume(actor.child)
            actor.progress = time.monotonic()
            actor.excused_until = actor.progress + EXCUSED_S
            self.happened(f"SIGCONT {actor.child.name}, peer {actor.peer}", actor.progress)

    def leave(self, actor: Actor) -> None:
        actor.leaving = True
        self.happened(f"SIGTERM {actor.child.name}, peer {actor.peer} ({actor.stage})")
        self.disturb(actor)
        with suppress(ProcessLookupError):
            self.fleet.ask_to_leave(actor.child)

    def happened(self, text: str, at: float | None = None, sort: str = "") -> None:
        """Notes it in the timeline; `sort`: and in the report's pictures."""
        at = time.monotonic() if at is None else at
        self.timeline.append((at, text))
        if sort:
            self.history.events.append(Event(at, sort, text))

    def disturb(self, actor: Actor) -> None:
        """What happens to it, happens to its island."""
        self._note_trouble(actor)
        for other in self.actors:
            if other is actor or (actor.island is not None and other.island == actor.island):
                other.disturbed = True
                other.excused_until = time.monotonic() + EXCUSED_S
                self.recovery.disturbed(other.child.pid)

    # ---- news ----

    def _note_trouble(self, actor: Actor) -> None:
        if actor.island is not None:
            self._trouble[actor.island] = time.monotonic()

    def poll(self, seconds: float) -> list[tuple[Actor, Record]]:
        """Waits at most so long for news, notes what every scenario notes, and returns it. Raises Hang."""
        actors = {actor.child: actor for actor in self.actors}
        news = []
        for child, record in self.fleet.poll(seconds):
            actor = actors.get(child)
            if actor is None:
                self._hear_other(child, record)
                continue
            actor.progress = max(actor.progress, record["t"])
            self._note(actor, record)
            news.append((actor, record))
        self._watch()
        return news

    def _hear_other(self, child: Child, record: Record) -> None:
        if heard := self._others.get(child):
            heard(child, record)
        elif record["what"] == "exit" and child.killed_at is None:
            self.report.death(f"the master, status {child.status}:\n{child.log_tail()}")

    def _note(self, actor: Actor, record: Record) -> None:
        child, what, t = actor.child, record["what"], record["t"]
        if what == "member":
            self._note_member(actor, record)
        elif what == "commit":
            self.report.operations += 1
            self.history.result(actor.place, t)
            self.report.repeated += record["attempts"] > 1
            for victim, took in self.recovery.committed(child.pid, record["contributors"], t):
                self.happened(
                    f"{child.name}, peer {actor.peer} goes on {took:.1f} ms after the kill of {victim}", t
                )
        elif what == "boundary":
            self.joins.boundary(child.pid, record["entered"], record["changed"])
        elif what == "wrong":
            self.report.wrong(
                f"{child.name}, peer {actor.peer}, operation {record.get('key')}: {record['text']}"
            )
        elif what in ("gone", "refused"):
            self.happened(
                f"{child.name}, peer {actor.peer} {what}: {record.get('error') or record['why']}", t
            )
            if what == "gone":
                self._note_gone(actor, record)
        elif what == "left":
            actor.stage = "left"
            self._note_trouble(actor)
        elif what == "exit":
            self._note_exit(actor)

    def _note_member(self, actor: Actor, record: Record) -> None:
        actor.stage, actor.peer = "member", record["peer"]
        actor.disturbed = False
        self.happened(
            f"{actor.child.name} is peer {actor.peer} after {record['connect_s'] * 1e3:.1f} ms", record["t"]
        )
        if actor.island is not None:
            self.island_of[actor.peer] = actor.island
        self.actor_of[actor.peer] = actor
        self.member_since[actor.peer] = record["t"]
        self.joins.member(record["t"], record["connect_s"])

    def _note_gone(self, actor: Actor, record: Record) -> None:
        actor.stage = "gone"
        self.recovery.disturbed(actor.child.pid)
        self.report.evictions += 1
        excused_until = max(actor.excused_until, self._trouble.get(actor.island or "", 0.0) + EXCUSED_S)
        if not actor.child.stopped and record["t"] > excused_until:
            self.report.evictions_unexpected += 1
            self.report.note(
                f"unexpected eviction of {actor.child.name}, peer {actor.peer}: {record['error']}"
            )
        actor.disturbed = True

    def _note_exit(self, actor: Actor) -> None:
        child = actor.child
        self.recovery.disturbed(child.pid)
        self.actors.remove(actor)
        if child.killed_at is not None or (child.status == 0 and actor.stage == "left"):
            return
        stacks = child.stacks.read_text(errors="replace") if child.stacks.exists() else ""
        self.report.death(
            f"{child.name}, peer {actor.peer}, status {child.status}:\n{child.log_tail(90)}\n{stacks}"
        )

    def _watch(self) -> None:
        now = time.monotonic()
        living = [child for child in self.fleet.children if child.alive and not child.stopped]
        members = sum(actor.stage == "member" for actor in self.actors)
        self.starvation.look((child.pid for child in living), now)
        there = {child.pid: child.name for child in living} | self.watched
        seen = {pid: name for pid, name in there.items() if pid not in self.overlooked}
        self.history.look(seen, members, now)
        for actor in self.actors:
            if (
                actor.child.stopped
                or actor.cut_off
                or not actor.child.alive
                or actor.child.killed_at is not None
            ):
                continue
            silent = now - actor.progress
            if silent <= self.hang_s:
                continue
            starved = self.starvation.since(actor.progress)
            if silent > self.hang_s + excused_s(starved, self.hang_s):
                self._report_hang(actor, now)
                raise Hang(now)

    def _report_hang(self, actor: Actor, now: float) -> None:
        living = [a.child for a in self.actors if a.child.alive and not a.child.stopped]
        picture = "; ".join(
            f"{a.child.name} peer {a.peer} {a.stage}, stopped: {a.child.stopped}, {now - a.progress:.1f} s"
            for a in self.actors
        )
        stacks = dump_stacks([*living, self._master.child])
        self.report.hang(f"{actor.child.name} made no progress for {self.hang_s:g} s ({picture})\n{stacks}")

    def until(
        self, condition: Callable[[], bool], each: Callable[[Actor, Record], None] | None = None
    ) -> None:
        """Polls until it holds; a peer that keeps it from holding is a hang in the end."""
        while not condition():
            for actor, record in self.poll(0.02):
                if each is not None:
                    each(actor, record)

    def run_for(self, seconds: float, each: Callable[[Actor, Record], None] | None = None) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for actor, record in self.poll(min(left, 0.02)):
                if each is not None:
                    each(actor, record)

    def end(self, each: Callable[[Actor, Record], None] | None = None) -> None:
        """All leave; who does not is a hang."""
        for actor in self.actors:
            self.resume(actor)
            self.leave(actor)
        self.until(lambda: not self.actors, each)
