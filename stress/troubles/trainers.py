"""Trainers with DiLoCo, checkpoints and coded snapshots, beside the peers and under all that happens to them:
killed, killed with their keepers as if their hosts were gone, and stopped."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .. import clock
from ..diloco_trainer import OVER, Trainer, TrainerTask, prepare
from ..processes import Child
from ..promises import Promise
from ..records import Record, Writer
from ..training_ledger import TrainingLedger
from .trouble import AGAIN_S, LOOK_S, TAKEN_S, Run, Trouble

TRAINERS = 3  # of which one may be lost with its keeper
# From its start until it has closed a window with the others; until the loss of a host would be survived.
BACK_S, SAFE_S = 40.0, 60.0
LEFT_S, ENDED_S = 60.0, 20.0  # until all have left; until their keepers are gone
STOPPED_S = (0.05, 3.2)
AWAY_S = (0.05, 0.8)


@dataclass(eq=False)
class _Seat:
    """`windows`: that this process has closed. `losses`: keepers that may be lost, as it last said."""

    number: int
    child: Child | None = None
    keeper: int = 0
    windows: int = 0
    losses: int = 0
    starts: int = 0
    asked: bool = False

    @property
    def is_well(self) -> bool:
        child = self.child
        return (
            child is not None
            and child.alive
            and child.killed_at is None
            and not child.stopped
            and (self.windows > 1)
        )


class Trainers(Trouble):
    name = "trainers"
    every_s = 6.0

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        prepare()
        self._seats = [_Seat(number) for number in range(TRAINERS)]
        self._ledger = TrainingLedger()
        self._told: Counter[str] = Counter()
        self._named = f"stress-{os.getpid()}"
        self._keepers: set[int] = set()
        self._asked: list[Promise] = []
        self._over_at = 0.0

    def begin(self, began: float, seconds: float) -> None:
        folder = self.run.scene.fleet.folder / self._named
        folder.mkdir()
        (folder / "keepers").mkdir(mode=0o700)
        for seat in self._seats:
            self._start(seat)
        super().begin(began, seconds)

    def results(self) -> dict[str, object]:
        return super().results() | {"training": dict(sorted(self._told.items()))}

    def plan(self) -> Callable[[], None]:
        order = self.draw.sample(range(TRAINERS), TRAINERS)
        kind = self.draw.choice(("kill", "kill", "kill with keeper", "kill with keeper", "stop"))
        share = self.draw.random()
        if self.first():
            kind = "kill with keeper"  # however short a run
        return lambda: self._strike(order, kind, share, time.monotonic() + TAKEN_S)

    # ---- what happens ----

    def _start(self, seat: _Seat) -> None:
        scene, sabotage = self.run.scene, self.run.sabotage
        folder, house, address = scene.fleet.folder / self._named, scene.house, scene.master_address
        task = TrainerTask(
            seat.number, address, self._named, folder, 1 if seat.starts else TRAINERS, house.insecure,
            sabotage if seat.number == 1 else None,
        )  # fmt: skip

        def main(out: Writer) -> None:
            house.enter(seat.number)
            clock.take(clock.slot_of(seat.number))
            os.environ["XDG_RUNTIME_DIR"] = str(folder / "keepers")
            Trainer(task, out).run()

        seat.starts += 1
        seat.windows = seat.losses = 0
        seat.child = scene.start_other(f"trainer{seat.number}-{seat.starts}", main, self._heard)
        self.run.scene.overlooked.update(self._pids())  # until all have their links and buffers
        self._promise(seat.child, "trains with the others", BACK_S, took=self.measured("trainer_is_back_ms"))
        self._promise(seat.child, "is safe from the loss of a host", SAFE_S, losses=1)

    def _pids(self) -> set[int]:
        """Of trainers and keepers. Over far lines, each link to one of the others is 16 descriptors."""
        return self._keepers | {seat.child.pid for seat in self._seats if seat.child is not None}

    def _promise(
        self, child: Child, text: str, within_s: float, losses: int = 0, took: list[float] | None = None
    ) -> None:
        """`losses`: keepers that may be lost."""

        def kept(who: object, record: Record) -> bool:
            return who is child and record["what"] == "window" and record["losses"] >= losses

        def void() -> bool:
            return child.killed_at is not None or not child.alive  # a death of its own is told anyway

        now = time.monotonic()
        made = self.run.promises.make(f"{child.name} {text}", now, within_s, kept, void=void, took_ms=took)
        self._asked = [*filter(self.run.promises.awaits, self._asked), made]

    def _strike(self, order: list[int], kind: str, share: float, gives_up: float) -> None:
        """As soon as all are well, and may lose a host. What they still have to do, they have a time for."""
        seat = self._seats[order[0]]
        ready = all(other.is_well and (other.losses or "keeper" not in kind) for other in self._seats)
        if not ready:
            if time.monotonic() < gives_up or any(map(self.run.promises.awaits, self._asked)):
                self.later(LOOK_S, lambda: self._strike(order, kind, share, gives_up))
            return
        child = seat.child
        assert child is not None
        self.happened(f"{kind} {child.name}")
        self._told[kind] += 1
        if kind == "stop":
            self._stop(child, STOPPED_S[0] + (STOPPED_S[1] - STOPPED_S[0]) * share)
            return
        self.run.scene.overlooked.update(self._pids())  # the others have fewer links for a while
        self.run.scene.fleet.kill(child)
        if "keeper" in kind and seat.keeper in keepers_of(self._named):  # and no other process of that number
            with suppress(ProcessLookupError):
                os.kill(seat.keeper, signal.SIGKILL)
        self.later(AWAY_S[0] + (AWAY_S[1] - AWAY_S[0]) * share, lambda: self._replace(seat))

    def _replace(self, seat: _Seat) -> None:
        """Once its predecessor is gone, as whoever supervises it would: until then that has its folder."""
        if seat.child is not None and seat.child.alive:
            self.later(LOOK_S, lambda: self._replace(seat))
        else:
            self._start(seat)

    def _stop(self, child: Child, lasts_s: float) -> None:
        fleet = self.run.scene.fleet
        fleet.stop(child)

        def resume() -> None:
            if child.alive:
                fleet.resume(child)
                self._promise(child, "trains again after SIGCONT", AGAIN_S)

        self.later(lasts_s, resume)

    # ---- what they say ----

    def _heard(self, child: Child, record: Record) -> None:
        report, what = self.run.scene.report, record["what"]
        self.run.promises.on_record(child, record)
        seat = next(seat for seat in self._seats if child.name.startswith(f"trainer{seat.number}-"))
        faults: list[str] = []
        if what == "window":
            self._told["windows"] += 1
            if seat.child is child:
                seat.windows, seat.losses = seat.windows + 1, record["losses"]
                if all(other.is_well and other.losses for other in self._seats):
                    self.run.scene.overlooked.difference_update(self._pids())
            faults = self._ledger.window(seat.number, record["number"], record["digest"])
        elif what == "step":
            self._ledger.step(seat.number, record["step"], record["digest"])
        elif what == "durable":
            self._told["durable"] += 1
            self._ledger.durable(seat.number, record["step"])
        elif what == "resumed":
            self._told[f"resumed from {record['source']}"] += 1
            self._watch_keeper(seat, record["keeper"])
            faults = self._ledger.resumed(seat.number, record["source"], record["step"], record["digest"])
        elif what == "exit" and child.killed_at is None and child.status != 0:
            report.death(f"{child.name}, status {child.status}:\n{child.log_tail(60)}")
        for fault in faults:
            report.wrong(fault)

    def _watch_keeper(self, seat: _Seat, keeper: int) -> None:
        seat.keeper = keeper
        if keeper:
            self._keepers.add(keeper)
            self.run.scene.overlooked.add(keeper)
            self.run.scene.watched[keeper] = f"keeper of trainer {seat.number}"

    # ---- the end ----

    def end(self) -> None:
        self._over_at = time.monotonic() + LEFT_S
        (self.run.scene.fleet.folder / self._named / OVER).touch()
        for seat in self._seats:
            if seat.child is not None and seat.child.alive and seat.child.stopped:
                self.run.scene.fleet.resume(seat.child)

    @property
    def over(self) -> bool:
        here = [seat.child.name for seat in self._seats if seat.child is not None and seat.child.alive]
        since = self._over_at - LEFT_S
        if here and time.monotonic() > self._over_at + self.run.scene.starvation.since(since):
            self.run.scene.report.hang(f"{', '.join(here)}: told to leave, and did not within {LEFT_S:g} s")
            return True
        return not here

    def close(self) -> None:
        """Keepers whose trainers have all left have nobody to keep anything for: they end, by themselves."""
        until = time.monotonic() + ENDED_S
        while (left := keepers_of(self._named)) and time.monotonic() < until and self._over_at:
            time.sleep(LOOK_S)
        for pid in left:
            if self._over_at:
                self.run.scene.report.leak(
                    f"keeper {pid} is still there {ENDED_S:g} s after its trainers left"
                )
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def keepers_of(run: str) -> list[int]:
    """Processes that keep snapshots of that run, and with them their shared memory."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"pccl_py.snapshot.keeper" in words and run.encode() in words:
                found.append(int(process.name))
    return found
