"""Keepers code what they hold: hosts are lost with trainer and keeper, and the value is back bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest

from pccl_py import Master, NoSnapshotError
from pccl_py.snapshot import ask
from pccl_py.snapshot.buffers import Buffers
from tests.integration.peers import PATIENT
from tests.threads import in_threads

from .coded_trainer import coded_buffers, content, restored, take_coded
from .conftest import free_keepers
from .raw_trainer import BLOCK, take

MODULE = "tests.integration.snapshot.coded_trainer"
COUNT = 3_000_001


@pytest.fixture
def master() -> Iterator[Master]:
    with Master(config=PATIENT) as running:
        yield running
        free_keepers()  # who cannot say farewell tries for a while


def kill_host(process: subprocess.Popen[str], keeper: str) -> None:
    """The trainer and its keeper, at once."""
    kill_hosts({keeper: process})


def kill_hosts(victims: Mapping[str, subprocess.Popen[str]]) -> None:
    """By their keepers, which stand still before the first one is dead: nothing is repaired in between."""
    found = [ask.summary(path) for path in ask.sockets()]
    keepers = [one.pid for one in found if one is not None and one.keeper in victims]
    assert len(keepers) == len(victims)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in (*keepers, *(process.pid for process in victims.values())):
            os.kill(pid, number)
    for process in victims.values():
        process.wait()


@pytest.mark.deadline(120)
@pytest.mark.parametrize("frozen", [0, 8 * BLOCK])
@pytest.mark.parametrize(("world", "parity"), [(4, 1), pytest.param(6, 2, marks=pytest.mark.nightly)])
def test_lost_hosts_come_back(
    master: Master, spawn: Callable[..., Any], world: int, parity: int, frozen: int
) -> None:
    """As many as there are parities, killed at any moment; the others code on meanwhile, and hold it for who
    comes. What stays as it was is not sent again, and comes back with the rest."""
    lost = range(world - parity, world)
    count = COUNT + frozen
    words = [str(parity), str(count), str(frozen)]
    victims = [spawn("-m", MODULE, "run", master.address, str(number), *words) for number in lost]
    over = threading.Event()

    def survive(number: int) -> None:
        held = coded_buffers("run", master.address, number, parity)
        held.attach()
        step = unchanged = 0
        while not over.is_set() or held.coded is None or held.coded.losses < parity:
            step += 1
            take_coded(held, number, step, count, frozen)
            unchanged = max(unchanged, held.coded.unchanged)
        assert unchanged == frozen // BLOCK * BLOCK
        last, data = restored(held, count)
        assert last == step and np.array_equal(data, content(number, step, count, frozen))
        held.close(free=True)

    def strike() -> None:
        try:
            for victim in victims:
                while int(line := victim.stdout.readline()) < 3:
                    assert line
            for number, victim in zip(lost, victims, strict=True):
                kill_host(victim, f"k{number}")
            for number, victim in zip(lost, victims, strict=True):
                follow(number, max([3, *(int(line) for line in victim.stdout.read().split())]))
        finally:
            over.set()

    def follow(number: int, last: int) -> None:
        successor = coded_buffers("run", master.address, number, parity, keeper=f"new{number}")
        successor.attach()
        assert not successor.kept
        successor.fetch(60.0)
        step, data = restored(successor, count)
        assert step >= last
        assert np.array_equal(data, content(number, step, count, frozen))
        take_coded(successor, number, step + 1, count, frozen)
        successor.close(free=False)

    in_threads([*(partial(survive, number) for number in range(world - parity)), strike], 100)


@pytest.mark.deadline(120)
def test_more_losses_than_parities_are_told(master: Master, spawn: Callable[..., Any]) -> None:
    words = ["1", str(COUNT), "0"]
    victims = [spawn("-m", MODULE, "run", master.address, str(number), *words) for number in (1, 2)]
    first = coded_buffers("run", master.address, 0, 1)
    first.attach()
    for victim in victims:
        take_coded(first, 0, first.newest_step + 1, COUNT)
        assert victim.stdout.readline()
    kill_hosts(dict(zip(("k1", "k2"), victims, strict=True)))
    successor = coded_buffers("run", master.address, 2, 1, keeper="new")
    successor.attach()
    with pytest.raises(NoSnapshotError, match=r"trainer 't2' is gone: any 2 of the 3 keepers of its code"):
        successor.fetch(60.0)
    stranger = coded_buffers("run", master.address, 9, 1, keeper="new")
    stranger.attach()
    with pytest.raises(NoSnapshotError, match="no keeper of the run has ever had a snapshot of it"):
        stranger.fetch(60.0)
    for one in (first, successor, stranger):
        one.close(free=True)


def keeper_pid(keeper: str) -> int:
    found = [ask.summary(path) for path in ask.sockets()]
    return next(one.pid for one in found if one is not None and one.keeper == keeper)


def test_a_keeper_that_dies_while_its_trainer_waits_for_the_code(master: Master) -> None:
    """The next one gets the snapshot, and has it coded: the training hears nothing of it."""
    first, second = (coded_buffers("run", master.address, number, 1) for number in (0, 1))
    for one in (first, second):
        one.attach()
    in_threads([partial(take_coded, one, number, 1, COUNT) for number, one in enumerate((first, second))], 30)
    take(first, 2, content(0, 2, COUNT))  # the other one is late: for a while nothing is coded
    striking = threading.Timer(0.3, lambda: os.kill(keeper_pid("k0"), signal.SIGKILL))
    striking.start()
    before = first.keeper
    assert first.await_coded(2, 30.0) == "" and first.keeper is not before
    step, data = restored(first, COUNT)
    assert step == 2 and np.array_equal(data, content(0, 2, COUNT))
    for one in (first, second):
        one.close(free=True)


def test_what_was_freed_here_is_wanted_where_its_trainer_goes_on(master: Master) -> None:
    """It is lost there: that it was freed here, before, does not count any more."""
    first, second, third = (coded_buffers("run", master.address, number, 1) for number in (0, 1, 2))
    others = {1: second, 2: third}
    for one in (first, second, third):
        one.attach()

    def all_take(step: int, of: dict[int, Buffers]) -> None:
        in_threads([partial(take_coded, one, number, step, COUNT) for number, one in of.items()], 30)

    all_take(1, {0: first, **others})
    extra = coded_buffers("run", master.address, 9, 1, keeper="k0")  # so that k0 stays
    extra.attach()
    first.close(free=True)
    moved = coded_buffers("run", master.address, 0, 1, keeper="new")
    moved.attach()
    for step in (2, 3):
        all_take(step, {0: moved, **others})
    os.kill(keeper_pid("new"), signal.SIGKILL)
    moved.close(free=False)
    successor = coded_buffers("run", master.address, 0, 1, keeper="k1")
    successor.attach()
    successor.fetch(20.0)
    step, data = restored(successor, COUNT)
    assert step == 3 and np.array_equal(data, content(0, 3, COUNT))
    for one in (successor, second, third, extra):
        one.close(free=True)


def test_a_successor_waits_for_the_code_before_it_writes(master: Master) -> None:
    """Its predecessor was killed before its last snapshot was coded: until then the one before is what the
    other keepers' parities are made of, and what a second loss would need."""
    first, second = (coded_buffers("run", master.address, number, 1) for number in (0, 1))
    for one in (first, second):
        one.attach()
    in_threads([partial(take_coded, one, number, 1, COUNT) for number, one in enumerate((first, second))], 30)
    take(first, 2, content(0, 2, COUNT))  # the other one is late
    first.close(free=False)
    successor = coded_buffers("run", master.address, 0, 1)
    successor.attach()
    take(successor, 3, content(0, 3, COUNT))
    assert successor.coded is not None and successor.coded.step == 2
    for one in (successor, second):
        one.close(free=True)
