"""What `python -m stress run` does to a run, without one: every trouble must notice that nothing goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from stress.house import Network
from stress.processes import Child
from stress.promises import Promises
from stress.scenarios import SCENARIOS
from stress.scene import Actor
from stress.timetable import Timetable
from stress.troubles import clocks, disk
from stress.troubles.trouble import Trouble

TROUBLES = sorted({kind for scenario in SCENARIOS.values() for kind in scenario.troubles}, key=str)


class FakeRun:
    """A run of four peers that do nothing by themselves."""

    seed, sabotage, places = 3, None, 4

    def __init__(self) -> None:
        self.broken: list[str] = []
        self.timetable = Timetable()
        self.promises = Promises(self.broken.append)
        self.scene = MagicMock()
        self.scene.house = Network.__new__(Network)
        self.scene.house.net = MagicMock()
        self.scene.house.places, self.scene.house.rtt_ms, self.scene.house.rate_mbit = 4, 1.0, 1.0
        self.scene.master_away = False
        self.scene.actors = []
        self.scene.stop = self._stop
        self.scene.start_other = lambda name, main, heard: child(name)
        for place in range(4):
            self.fill(place)

    def fill(self, place: int) -> None:
        actor = Actor(child(f"peer at {place}"), place, 0, None, peer=place + 1, stage="member")
        self.scene.actors.append(actor)

    def at(self, place: int) -> list[Actor]:
        return [actor for actor in self.scene.actors if actor.place == place]

    def may_take(self, place: int) -> bool:
        return True

    def _stop(self, actor: Actor) -> None:
        actor.child.stopped = True
        self.scene.resume = lambda actor: setattr(actor.child, "stopped", False)

    def pass_time(self) -> None:
        """Everything that was planned happens, and what follows from it."""
        for _ in range(300):
            self.timetable.act(time.monotonic() + 1e6)
            if self.timetable.due() == float("inf"):
                return


def child(name: str) -> Child:
    return Child(name, 1, MagicMock(), Path("/dev/null"), Path("/dev/null"), 0.0)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    monkeypatch.setattr(clocks.clock, "jump", lambda slots, seconds: None)
    monkeypatch.setattr(disk, "SmallDisk", MagicMock())
    monkeypatch.setattr(disk, "prepare", lambda way: None)
    monkeypatch.setattr(disk.FullDisk, "_keep_full", lambda self, room: None)
    return FakeRun()


@pytest.mark.parametrize("kind", TROUBLES)
def test_a_run_that_does_not_go_on_is_seen(run: FakeRun, kind: type[Trouble]) -> None:
    trouble = kind(run)
    trouble.begin(0.0, 60.0)
    run.pass_time()
    assert trouble.count > 0
    assert run.promises.open
    run.promises.check(time.monotonic() + 1e6)
    assert run.broken and not run.promises.open
    assert all(" within " in text for text in run.broken)


@pytest.mark.parametrize("kind", [kind for kind in TROUBLES if kind is not disk.FullDisk])
def test_a_run_that_goes_on_keeps_every_promise(run: FakeRun, kind: type[Trouble]) -> None:
    trouble = kind(run)
    trouble.begin(0.0, 30.0)
    run.pass_time()
    record = {"what": "commit", "t": time.monotonic() + 0.1, "contributors": [99]}
    for actor in run.scene.actors:
        run.promises.on_record(actor, record)
    run.promises.check(time.monotonic() + 1e6)
    assert run.broken == []


@pytest.mark.parametrize("kind", TROUBLES)
def test_a_seed_replays_a_trouble(run: FakeRun, kind: type[Trouble]) -> None:
    def planned(seed: int) -> list[float]:
        run.seed = seed
        trouble = kind(run)
        return [round(at, 6) for at in trouble._times(60.0)]

    assert planned(4) == planned(4) != planned(5)


def disk_run(run: FakeRun) -> tuple[disk.FullDisk, Child]:
    trouble = disk.FullDisk(run)
    trouble.begin(0.0, 0.0)
    assert trouble._saver is not None
    run.scene.report.reset_mock()
    return trouble, trouble._saver


@pytest.mark.parametrize(
    ("records", "fault"),
    [
        ([("durable", {"step": 5}), ("loaded", {"step": 4, "verdict": "right"})], "wrong"),
        ([("loaded", {"step": 4, "verdict": "t0 holds 3"})], "wrong"),
        ([("unsaved", {"step": 4, "text": "CheckpointError: something"})], "broken"),
        ([("exit", {})], "death"),
        ([("durable", {"step": 5}), ("loaded", {"step": 5, "verdict": "right"})], None),
        ([("unsaved", {"step": 4, "text": "CheckpointError: No space left on device"})], None),
    ],
)
def test_a_saver_that_lies_is_seen(run: FakeRun, records: Any, fault: str | None) -> None:
    trouble, saver = disk_run(run)
    for what, fields in records:
        trouble._heard(saver, {"what": what, "t": 0.0, **fields})
    report = run.scene.report
    for name in ("wrong", "broken", "death"):
        assert getattr(report, name).called == (name == fault)
