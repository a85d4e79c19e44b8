"""A disk that fills up and is freed again under a process that saves checkpoints, and is killed now and then.

A save that cannot be made says so and names the reason; what was durable is loaded, bit for bit; once there
is room, steps are saved again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from ..checkpoint_savers import prepare
from ..disk_saver import run_saver
from ..processes import Child
from ..promises import Promise
from ..records import Record
from ..small_disk import SmallDisk
from .trouble import Run, Trouble

SIZE = 24 << 20  # seven steps of a saver; it keeps two
FILLED_EVERY_S = 0.02
LOOK_S = 0.1
TOLD_S, SAVED_S, LOADED_S = 6.0, 10.0, 20.0


class FullDisk(Trouble):
    name = "full_disks"
    every_s = 5.0

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        prepare("save")
        self._disk = SmallDisk(run.scene.fleet.folder / "disk", SIZE)
        self._root = self._disk.folder / "run"
        self._saver: Child | None = None
        self._durable = -1
        self._full = self._busy = self._over = False
        self._due: deque[Callable[[], None]] = deque()  # while one disk is full, another cannot be
        self._asked: list[Promise] = []
        self.saved = self.unsaved = self.loads = self.kills = 0

    def begin(self, began: float, seconds: float) -> None:
        self._start()
        super().begin(began, seconds)

    def results(self) -> dict[str, object]:
        told = {"steps_durable": self.saved, "saves_refused": self.unsaved, "loads_checked": self.loads}
        return super().results() | told | {"savers_killed": self.kills}

    def plan(self) -> Callable[[], None]:
        lasts_s, room = 2.5 + 1.5 * self.draw.random(), self.draw.choice((0, 0, 1 << 20, 4 << 20))
        killed = self.draw.random() < 0.5
        if self.first():
            room, killed = 0, False  # however short a run: who cannot save has to say so
        return lambda: self._queue(lambda: self._fill(lasts_s, room, killed))

    # ---- what happens ----

    def _start(self) -> None:
        root, sabotage = self._root, self.run.sabotage
        scene = self.run.scene
        self._saver = scene.start_other(
            f"saver{self.kills}", lambda out: run_saver(root, out, sabotage), self._heard
        )
        self._promise("has loaded what was there", LOADED_S, "loaded")

    def _queue(self, fill: Callable[[], None]) -> None:
        """Each is carried out, however slow the machine: the next one begins when all that is to come of the
        one before has come of it."""
        self._due.append(fill)
        if not self._busy:
            self._next()

    def _next(self) -> None:
        self._busy = bool(self._due)
        if self._due:
            self._due.popleft()()

    def _fill(self, lasts_s: float, room: int, killed: bool) -> None:
        self._full = True
        self.happened(f"the disk is full but {room >> 20} MiB, for {lasts_s:.1f} s")
        self._keep_full(room)
        if killed:
            self.later(lasts_s / 2, self._kill)
        elif room == 0:
            self._promise("says that the disk is full", TOLD_S, "unsaved")
        self.later(lasts_s, lambda: self._when_settled(lambda: self._free(killed)))

    def _when_settled(self, then: Callable[[], None]) -> None:
        """Once no promise of savers is open any more. Until then they are neither killed nor given room."""
        self._asked = [promise for promise in self._asked if self.run.promises.awaits(promise)]
        if self._asked:
            self.later(LOOK_S, lambda: self._when_settled(then))
        else:
            then()

    def _keep_full(self, room: int) -> None:
        """Savers retire old steps, which makes room."""
        if self._full:
            self._disk.fill(room)
            self.later(FILLED_EVERY_S, lambda: self._keep_full(room))

    def _kill(self) -> None:
        if self._saver is not None and self._saver.alive:
            self.run.scene.happened(f"SIGKILL of {self._saver.name}", sort=self.name)
            self.run.scene.fleet.kill(self._saver)
            self.kills += 1

    def _free(self, killed: bool) -> None:
        self._full = False
        self._disk.free()
        self.run.scene.happened("the disk has room again", sort=self.name)
        if not killed:
            took = self.measured("durable_after_room_ms")
            self._promise("has saved a step since there is room", SAVED_S, "durable", took_ms=took)
        self.later(LOOK_S, lambda: self._when_settled(self._next))

    def _promise(
        self,
        text: str,
        within_s: float,
        what: str,
        took_ms: list[float] | None = None,
    ) -> None:
        saver = self._saver
        assert saver is not None

        def kept(who: object, record: Record) -> bool:
            return who is saver and record["what"] == what

        def void() -> bool:
            return not saver.alive or saver.killed_at is not None

        now = time.monotonic()
        text = f"{saver.name} {text}"
        self._asked.append(self.run.promises.make(text, now, within_s, kept, void=void, took_ms=took_ms))

    # ---- what savers say ----

    def _heard(self, child: Child, record: Record) -> None:
        report, what = self.run.scene.report, record["what"]
        self.run.promises.on_record(child, record)
        if what == "durable":
            self.saved += 1
            self._durable = max(self._durable, record["step"])
        elif what == "loaded":
            self.loads += record["step"] >= 0
            if record["step"] < self._durable:
                report.wrong(f"step {self._durable} was durable, step {record['step']} was loaded")
            if record["verdict"] != "right":
                report.wrong(f"step {record['step']} was loaded: {record['verdict']}")
        elif what == "unsaved":
            self.unsaved += 1
            if "space" not in record["text"]:
                report.broken(f"a save on a full disk says why: {record['text']}")
        elif what == "exit" and not self._over:
            if child.killed_at is None:
                report.death(f"{child.name}, status {child.status}:\n{child.log_tail(40)}")
            self.later(0.1, self._start)

    def end(self) -> None:
        self._over = True
        self._disk.free()
        self._kill()
