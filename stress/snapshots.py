"""SIGKILL and SIGSTOP of trainers and keepers at random instants, and at named moments of keepers' work: what
was said to be safe comes back bit for bit, what cannot is named, nobody hangs, nothing is left.

Each place stands for a host: a trainer in a process that is forked, its keeper started as ever. Those that
were not struck go on from pattern to pattern.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from . import snapshot_keeper
from .house import House
from .master_seat import MasterSeat
from .processes import Fleet, dump_stacks
from .records import Writer
from .report import Report
from .snapshot_place import Place, Task
from .snapshot_strikes import Blow, Strike, drawn, every_phase
from .starvation import Patience

ELEMENTS = 1 << 20  # of int32
PACE_S = 0.05
CODE_S = 60.0  # the hang is found before; a busy machine needs that long to import torch
STEPS = 10_000  # a trainer whose state is gone begins so far beyond all before
TICK_S = 0.02
LOOK_S = 1.0  # for who is stopped
REACH_S = 3.0  # so long a moment may take to come
END_S = 20.0
# Twelve processes on few cores are silent at times; who is killed is known by its connections, at once.
SILENCE = {"PCCL_HEARTBEAT_MS": "300", "PCCL_HEARTBEATS_MISSED_MAX": "10"}


@dataclass(frozen=True, kw_only=True)
class SnapshotsPlan:
    seed: int
    patterns: int
    peers: int
    parity: int
    hang_s: float
    keep: Path | None
    sabotage: str | None = None
    phases: bool = False


Train = Callable[[Task, Writer], None]


class Stuck(Exception):
    """A deadline is over; the report says whose."""


def run_snapshots(plan: SnapshotsPlan, report: Report) -> Report:
    from .snapshot_trainer import train  # torch, before the forks

    folder = plan.keep or Path(tempfile.mkdtemp(prefix="ps-"))
    folder.mkdir(parents=True, exist_ok=True)
    sockets = Path(tempfile.mkdtemp(prefix="ps-"))  # short: a socket's path is
    os.environ |= {"XDG_RUNTIME_DIR": str(sockets), snapshot_keeper.MOMENTS: str(sockets), **SILENCE}
    begun = time.monotonic()
    try:
        with Fleet(folder) as fleet:
            run = _Run(plan, report, fleet, sockets, train)
            try:
                run.all()
            except Stuck:
                pass
            finally:
                run.bury()
    finally:
        report.seconds = time.monotonic() - begun
        shutil.rmtree(sockets, ignore_errors=True)
        if plan.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    return report


class _Run:
    def __init__(
        self, plan: SnapshotsPlan, report: Report, fleet: Fleet, sockets: Path, train: Train
    ) -> None:
        self._train = train
        self._plan, self._report, self._fleet, self._sockets = plan, report, fleet, sockets
        self._master = MasterSeat(fleet, House(), None)
        self._places = [Place(number) for number in range(plan.peers)]
        self._patterns = self._starts = 0
        self._what, self._looked = "start", 0.0
        self._longest: dict[str, float] = {}
        self._patience = Patience(2 * plan.hang_s, self._pids)

    def all(self) -> None:
        for place in self._places:
            self._start(place)
        for number, strike in enumerate(self._strikes()):
            self._what = f"pattern {number}"
            self._safe(self._places)
            self._what = f"pattern {number}: {strike}"
            self._pattern(strike)
            self._patterns += 1
            self._report.more["patterns"] = self._patterns
        self._what = "the end"
        self._safe(self._places)
        self._end()

    def _strikes(self) -> Iterable[Strike]:
        plan = self._plan
        if plan.phases:
            return every_phase()
        return (
            drawn(random.Random(f"{plan.seed}/{number}"), plan.peers, plan.parity)
            for number in range(plan.patterns)
        )

    # --- One pattern.

    def _pattern(self, strike: Strike) -> None:
        beyond = len(strike.lost) > self._plan.parity
        for place in self._places:
            place.exactly, place.may_be_gone = None, beyond
            place.must_be_gone = False
        if strike.after is not None:
            self._order(self._places[strike.after.place], strike.after)
        self._hit(strike)
        if strike.certain and beyond:
            for blow in strike.blows:
                self._places[blow.place].must_be_gone = True
        self._pause(strike.stop_s)
        self._resume()
        if strike.alone:
            left = [place for place in self._places if place.alive]
            self._safe(left, sum(place.keeper_pid() > 0 for place in self._places))
            self._hit(Strike((strike.alone,)))
        self._pause(strike.away_s)
        for place in self._places:
            if not place.alive:
                self._start(place)
        self._came()
        self._forget_orders()

    def _hit(self, strike: Strike) -> None:
        pids = {blow.place: self._places[blow.place].keeper_pid() for blow in strike.blows}
        first = strike.blows[0]
        if strike.moment:
            self._order(self._places[first.place], replace(first, moment=strike.moment))
            self._reached(self._places[first.place], pids[first.place], first.what)
        else:
            self._pause(strike.delay_s)
        for blow in strike.blows:
            self._strike(self._places[blow.place], blow, pids[blow.place])

    def _strike(self, place: Place, blow: Blow, pid: int) -> None:
        place.struck = True
        if blow.what in ("keeper", "both"):
            place.signal_keeper(pid, signal.SIGKILL)
            self._report.kills += 1
        if blow.what == "stop":
            place.signal_keeper(pid, signal.SIGSTOP)
            self._report.pauses += 1
        if blow.what in ("trainer", "both") and place.child is not None and place.child.alive:
            self._fleet.kill(place.child)
            self._report.kills += 1
        if blow.what == "trainer":
            self._until(lambda: not place.alive, f"the end of trainer {place.number}")
            place.exactly = self._kept(place)

    def _kept(self, place: Place) -> int | None:
        """What its keeper has of it."""
        found = place.summary()
        steps = [one.step for one in found.trainers if one.trainer == f"t{place.number}"] if found else []
        return max(steps, default=None)

    def _order(self, place: Place, blow: Blow) -> None:
        self._write(place.keeper_name, f"{blow.moment} {blow.seconds:.4f} {blow.what}")
        place.struck = place.ordered = True

    def _write(self, name: str, text: str) -> None:
        path = self._sockets / name
        path.with_name(f"{name}.new").write_text(text)
        path.with_name(f"{name}.new").rename(path)

    def _reached(self, place: Place, pid: int, what: str) -> None:
        until = time.monotonic() + REACH_S
        while time.monotonic() < until and Path(f"/proc/{pid}").exists():
            if what == "trainer" and not place.alive:
                return
            if _state(pid) == "T":
                place.stopped = pid
                return
            self._poll(0.002)

    def _resume(self) -> None:
        for place in self._places:
            if place.stopped:
                place.signal_keeper(place.stopped, signal.SIGCONT)

    def _forget_orders(self) -> None:
        for place in self._places:
            order = self._sockets / place.keeper_name
            if place.ordered and not order.exists():
                self._report.more["moments_struck"] = self._report.more.get("moments_struck", 0) + 1
            order.unlink(missing_ok=True)
            place.ordered = False

    # --- Waiting.

    def _safe(self, places: list[Place], count: int = 0) -> None:
        """Until all have a snapshot that is coded, and as many losses are survived as can be."""
        since = time.monotonic()
        wanted = min(self._plan.parity, (count or len(self._places)) - 1)

        def safe() -> bool:
            self._replace_late(places)
            return all(one.alive and one.coded_at > since and one.losses == wanted for one in places)

        self._until(safe, f"all to survive {wanted} losses")
        self._clean(places)
        for place in places:
            place.struck = place.may_be_gone = False

    def _replace_late(self, places: list[Place]) -> None:
        """Who was killed, or stopped, by a blow that came late."""
        if time.monotonic() > self._looked + LOOK_S:
            self._looked = time.monotonic()
            for pid in _keepers(self._sockets):
                if _state(pid) == "T":
                    os.kill(pid, signal.SIGCONT)
        for place in places:
            if not place.alive and place.struck:
                self._start(place)

    def _clean(self, places: list[Place]) -> None:
        """No keeper holds what is for nobody."""
        wanted = {f"t{one.number}" for one in self._places if not one.alive}

        def clean() -> bool:
            held = [one.summary() for one in places]
            return all(
                found is not None and {one.trainer for one in found.trainers} <= {f"t{place.number}", *wanted}
                for place, found in zip(places, held, strict=True)
            )

        self._until(clean, "keepers to give up copies that are for nobody")

    def _came(self) -> None:
        """All that were started have said what they found; after that it may be as slow as it is."""

        def came() -> bool:
            self._replace_late(self._places)
            return all(one.came for one in self._places)

        self._until(came, "trainers to come back")

    def _until(self, true: Callable[[], bool], what: str) -> None:
        begun = time.monotonic()
        self._patience.begin(begun)
        while not true():
            self._poll(TICK_S)
            if self._patience.is_over(time.monotonic()):
                starved = f"of which processes had no core for {self._patience.starved_s:.0f} s at most"
                self._report.hang(f"{self._what}: waiting for {what}, {starved}\n{self._stacks()}")
                raise Stuck
        spent = time.monotonic() - begun
        if spent > self._longest.get(what, 0.0):
            self._longest[what] = round(spent, 1)
            self._report.more["longest_waits_s"] = self._longest

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._poll(min(left, TICK_S))

    def _poll(self, seconds: float) -> None:
        for child, record in self._fleet.poll(seconds):
            place = next((one for one in self._places if one.child is child), None)
            if place is None:
                continue
            if record["what"] == "exit":
                if not place.struck:
                    self._report.death(f"trainer {place.number}: status {child.status}\n{child.log_tail()}")
                    raise Stuck
            else:
                before = len(self._report.details)
                self._report.operations += place.hear(record, self._report)
                if len(self._report.details) > before and not self._report.faultless:
                    self._report.details[-1] += f"\n{self._what}\n{self._logs()}"
                    raise Stuck

    # --- Processes.

    def _start(self, place: Place) -> None:
        place.came, place.coded_at, place.losses = False, 0.0, -1
        self._starts += 1
        plan = self._plan
        task = Task(place.number, self._master.address, plan.parity, ELEMENTS, self._starts * STEPS, CODE_S,
                    PACE_S, plan.sabotage)  # fmt: skip

        def main(out: Writer, lifeline: int) -> None:
            self._train(task, out)

        place.child = self._fleet.start(f"trainer{place.number}-{self._starts}", main)
        self._write(f"{place.keeper_name}.pid", str(place.child.pid))

    def _pids(self) -> Iterable[int]:
        """Of trainers and keepers."""
        yield from (one.child.pid for one in self._places if one.alive and one.child)
        yield from _keepers(self._sockets)

    def _stacks(self) -> str:
        for place in self._places:
            place.signal_keeper(place.keeper_pid(), signal.SIGUSR1)
        told = "\n".join(place.told() for place in self._places) + "\n"
        return (
            told + dump_stacks([one.child for one in self._places if one.alive and one.child]) + self._logs()
        )

    def _logs(self) -> str:
        return "\n".join(place.log() for place in self._places)

    def _end(self) -> None:
        """All free what they have: keepers end by themselves."""
        for place in self._places:
            place.struck = True
            assert place.child is not None
            self._fleet.ask_to_leave(place.child)
        self._until(lambda: not any(one.alive for one in self._places), "trainers to end")
        self._until(lambda: not _keepers(self._sockets), "keepers to end")

    def bury(self) -> None:
        """Whatever is left."""
        left = _keepers(self._sockets)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if left and self._report.faultless:
            self._report.leak(f"keepers {left} are there after the end")


def _keepers(sockets: Path) -> list[int]:
    """By their environment: also those that nobody can reach."""
    wanted = f"XDG_RUNTIME_DIR={sockets}\0".encode()
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and b"keeper" in (folder / "cmdline").read_bytes():
                if wanted in (folder / "environ").read_bytes() and _state(int(folder.name)) not in "ZX":
                    found.append(int(folder.name))
    return found


def _state(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "X"
