"""What `python -m stress run` does to a run, without one: every trouble must notice that nothing goes on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from stress.house import Network
from stress.processes import Child
from stress.promises import Promises
from stress.scenarios import SCENARIOS
from stress.scene import Actor
from stress.timetable import Timetable
from stress.troubles import clocks, cuts, disk, masters, stops, storms, trainers, trouble
from stress.troubles.trouble import Trouble

TROUBLES = sorted({kind for scenario in SCENARIOS.values() for kind in scenario.troubles}, key=str)


class FakeRun:
    """A run of four peers that do nothing by themselves."""

    seed, sabotage, places = 3, None, 4

    def __init__(self) -> None:
        self.now, self.results = 0.0, False  # whether each peer has one after each event
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
        """Everything that was planned happens, and what follows from it, but for who waits for ever."""
        for _ in range(2000):
            if self.timetable.due() == float("inf"):
                return
            self.now = max(self.now, self.timetable.due())
            self.timetable.act(self.now)
            for actor in self.scene.actors if self.results else ():
                record = {"what": "commit", "t": self.now + 0.05, "contributors": [99]}
                self.promises.on_record(actor, record)


def child(name: str) -> Child:
    return Child(name, 1, MagicMock(), Path("/dev/null"), Path("/dev/null"), 0.0)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    monkeypatch.setattr(clocks.clock, "jump", lambda slots, seconds: None)
    monkeypatch.setattr(disk, "SmallDisk", MagicMock())
    monkeypatch.setattr(disk, "prepare", lambda way: None)
    monkeypatch.setattr(disk.FullDisk, "_keep_full", lambda self, room: None)
    run = FakeRun()
    for module in (clocks, cuts, disk, masters, storms, trainers, trouble):
        if hasattr(module, "time"):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: run.now))
    return run


@pytest.mark.parametrize("kind", TROUBLES)
def test_a_run_that_does_not_go_on_is_seen(run: FakeRun, kind: type[Trouble]) -> None:
    one = kind(run)
    one.begin(0.0, 60.0)
    run.pass_time()
    assert one.count > 0 or kind is trainers.Trainers  # which strikes those alone who are well
    assert run.promises.open
    run.promises.check(run.now + 1e6)
    assert run.broken and not run.promises.open
    assert all(" within " in text for text in run.broken)


@pytest.mark.parametrize(
    "kind", [kind for kind in TROUBLES if kind not in (disk.FullDisk, trainers.Trainers)]
)
def test_a_run_that_goes_on_keeps_every_promise(run: FakeRun, kind: type[Trouble]) -> None:
    one = kind(run)
    one.begin(0.0, 30.0)
    run.results = True
    run.pass_time()
    run.promises.check(run.now + 1e6)
    assert run.broken == [] and run.promises.kept > 0


@pytest.mark.parametrize(("kind", "what"), [(cuts.Cuts, "cut off for"), (disk.FullDisk, "full but 0 MiB")])
@pytest.mark.parametrize("seed", range(1, 9))
def test_the_shortest_run_has_what_matters(run: FakeRun, kind: type[Trouble], what: str, seed: int) -> None:
    run.seed = seed
    one = kind(run)
    one.begin(0.0, 2.0)
    run.pass_time()
    assert any(what in call.args[0] for call in run.scene.happened.call_args_list)


@pytest.mark.parametrize("kind", TROUBLES)
def test_a_seed_replays_a_trouble(run: FakeRun, kind: type[Trouble]) -> None:
    def planned(seed: int) -> list[float]:
        run.seed = seed
        one = kind(run)
        return [round(at, 6) for at in one._times(60.0)]

    assert planned(4) == planned(4) != planned(5)


def disk_run(run: FakeRun) -> tuple[disk.FullDisk, Child]:
    one = disk.FullDisk(run)
    one.begin(0.0, 0.0)
    run.timetable.clear()  # but for what the test says
    assert one._saver is not None
    run.scene.report.reset_mock()
    return one, one._saver


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
    one, saver = disk_run(run)
    for what, fields in records:
        one._heard(saver, {"what": what, "t": 0.0, **fields})
    report = run.scene.report
    for name in ("wrong", "broken", "death"):
        assert getattr(report, name).called == (name == fault)


def test_a_full_disk_waits_for_what_its_saver_has_to_say(run: FakeRun) -> None:
    """On a slow machine the next one would kill it before: nobody would learn that it said nothing."""
    one, saver = disk_run(run)
    one._heard(saver, {"what": "loaded", "t": run.now + 0.1, "step": -1, "verdict": "right"})
    one._queue(lambda: one._fill(3.0, 0, False))
    one._queue(lambda: one._fill(3.0, 0, True))
    run.pass_time()
    assert one.count == 1 and one._full and one.kills == 0
    run.promises.check(run.now + 1e6)
    assert len(run.broken) == 1 and "says that the disk is full" in run.broken[0]
    run.pass_time()
    assert one.count == 1 and not one._full  # and now it has to save again
    run.promises.check(run.now + 1e6)
    assert len(run.broken) == 2 and "since there is room" in run.broken[1]
    run.pass_time()
    assert (one.count, one.kills) == (2, 1)


@pytest.mark.parametrize("kind", [cuts.Cuts, stops.Stops])
def test_a_trouble_waits_for_a_victim(run: FakeRun, kind: type[Trouble]) -> None:
    """On a busy machine all may be down when it is due."""
    one = kind(run)
    for actor in run.scene.actors:
        actor.stage = "joining"
    taken: list[Actor] = []
    one.take([2, 0, 1, 3], taken.append)
    run.now = 5.0
    run.timetable.act(run.now)
    assert not taken and run.timetable.due() < float("inf")
    run.scene.actors[2].stage = "member"
    run.now = 6.0
    run.timetable.act(run.now)
    assert taken == [run.scene.actors[2]] and run.timetable.due() == float("inf")


def test_who_ends_by_itself_has_not_come_back(run: FakeRun) -> None:
    """A peer that is cut off gives up some day; where it was killed, nothing is promised of it any more."""
    one = cuts.Cuts(run)
    for actor in run.scene.actors[:2]:
        one.comes_back(actor, "after it was cut off")
    run.scene.actors[0].child.killed_at = 0.0
    for actor in run.scene.actors[:2]:
        actor.child.status = 1
    run.promises.check(1.0)
    assert run.promises.void == 1
    run.promises.check(100.0)
    assert len(run.broken) == 1 and "peer at 1 is a member again" in run.broken[0]


def say(one: trainers.Trainers, seat: int, what: str, **fields: Any) -> None:
    saying = one._seats[seat].child
    assert saying is not None
    one._heard(saying, {"what": what, "t": 1e3, **fields})


def train(one: trainers.Trainers, seat: int, digests: str, losses: int = 1) -> None:
    for number, digest in enumerate(digests):
        say(one, seat, "window", number=number, digest=digest, losses=losses)


def test_a_trainer_and_its_keeper_are_killed_once_they_may_be(run: FakeRun) -> None:
    one = trainers.Trainers(run)
    one.begin(0.0, 2.0)
    run.now = 2.0
    run.timetable.act(run.now)
    train(one, 0, "ab"), train(one, 1, "ab"), train(one, 2, "ab", losses=0)
    run.now = 3.0
    run.timetable.act(run.now)
    assert one.count == 0 and not run.scene.fleet.kill.called
    train(one, 2, "ab")
    run.now = 4.0
    run.timetable.act(run.now)
    assert one.count == 1 and run.scene.fleet.kill.called
    assert not run.scene.report.wrong.called


def test_trainers_whose_states_differ_are_seen(run: FakeRun) -> None:
    one = trainers.Trainers(run)
    one.begin(0.0, 2.0)
    train(one, 0, "abc"), train(one, 1, "abd")
    assert run.scene.report.wrong.call_count == 1
    say(one, 0, "exit")
    assert run.scene.report.death.call_count == 1
