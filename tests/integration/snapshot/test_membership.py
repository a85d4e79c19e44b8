"""Keepers that come, leave, share a failure domain, or stand still in the middle of their work."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pccl_py import Config, Master
from pccl_py.snapshot import launch
from pccl_py.snapshot.buffers import Buffers
from stress.snapshot_keeper import MOMENTS
from tests.threads import in_threads

from .coded_trainer import coded_buffers, content, protect, restored, take_coded
from .conftest import free_keepers
from .test_across_hosts import COUNT, keeper_pid, master
from .test_repair import holders, survives, wait_for

__all__ = ["master"]  # a fixture


def all_take(held: dict[int, Buffers], step: int) -> None:
    in_threads([partial(take_coded, one, number, step, COUNT) for number, one in held.items()], 90)


def expect(one: Buffers, number: int, step: int) -> None:
    found, data = restored(one, COUNT)
    assert found == step and np.array_equal(data, content(number, step, COUNT))


def test_who_comes_and_who_leaves(master: Master) -> None:
    """With few keepers the parity is one less than they are, and status says so."""
    held: dict[int, Buffers] = {}
    for number, losses in ((0, 0), (1, 1), (2, 2), (3, 2)):
        held[number] = coded_buffers("run", master.address, number, 2)
        held[number].attach()
        take_coded(held[number], number, 1, COUNT)
        wait_for(lambda wanted=losses: survives(held, wanted))  # type: ignore[misc]
    for losses in (2, 1, 0):
        held.popitem()[1].close(free=True)
        wait_for(lambda wanted=losses: survives(held, wanted))  # type: ignore[misc]
    assert not holders(1) and not holders(2) and not holders(3), "freed is freed everywhere"
    held[0].close(free=True)


def test_a_domain_is_lost_as_one(master: Master) -> None:
    """Two keepers of each of two racks: a parity of 2 survives one rack."""
    held = {
        number: Buffers("run", f"t{number}", f"k{number}", 60.0, 60.0, protect(master.address, rack, 2))
        for number, rack in enumerate(("a", "a", "b", "b"))
    }
    in_threads([one.attach for one in held.values()], 60)
    all_take(held, 1)
    wait_for(lambda: survives(held, 1))
    pids = [keeper_pid(f"k{number}") for number in (2, 3)]
    for number, pid in zip((2, 3), pids, strict=True):
        os.kill(pid, signal.SIGKILL)
        held.pop(number).close(free=False)
    wait_for(lambda: survives(held, 0))  # all that are left are of one rack
    for number in (2, 3):
        successor = Buffers("run", f"t{number}", f"k{number}", 60.0, 60.0, protect(master.address, "c", 2))
        successor.attach()
        successor.fetch(30.0)
        expect(successor, number, 1)
        held[number] = successor
    wait_for(lambda: survives(held, 1))
    for one in held.values():
        one.close(free=True)


@pytest.fixture
def quick_master() -> Iterator[Master]:
    """Takes a keeper that is silent for 1.5 s for lost."""
    with Master(config=Config(heartbeat_ms=150, heartbeats_missed_max=10)) as running:
        yield running
        free_keepers()


@pytest.mark.deadline(120)
def test_a_keeper_that_stands_still_while_it_codes(
    quick_master: Master, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others go on without it, and what its trainer had is safe with them; later it is one of them again,
    with what its trainer has taken since."""
    monkeypatch.setattr(launch, "MODULE", "stress.snapshot_keeper")
    monkeypatch.setenv(MOMENTS, folder)
    held = {number: coded_buffers("run", quick_master.address, number, 1) for number in range(3)}
    in_threads([one.attach for one in held.values()], 60)
    all_take(held, 1)
    wait_for(lambda: survives(held, 1))
    pid = keeper_pid("k2")
    Path(folder, "k2.new").write_text("vote 0.0 stop")
    Path(folder, "k2.new").rename(Path(folder, "k2"))
    others = {number: held[number] for number in (0, 1)}
    try:
        all_take(others, 2)
        assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        wait_for(lambda: survives(others, 1))
    finally:
        os.kill(pid, signal.SIGCONT)
    begun = time.monotonic()
    all_take(held, 3)
    wait_for(lambda: survives(held, 1) and holders(2) == ["k2"])
    assert time.monotonic() - begun < 30
    for number, one in held.items():
        expect(one, number, 3)
        one.close(free=True)
