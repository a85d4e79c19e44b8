"""What a trainer gives up alone, without the other ranks, is not brought back by their keepers."""

from __future__ import annotations

import os
import signal
from functools import partial

import numpy as np
import pytest

from pccl_py import Master, NoSnapshotError
from pccl_py.snapshot.buffers import Buffers
from tests.threads import in_threads

from .coded_trainer import coded_buffers, content, restored, take_coded
from .test_across_hosts import COUNT, keeper_pid, master
from .test_repair import holders, survives, wait_for

__all__ = ["master"]  # a fixture


def coded(master: Master, steps: int) -> dict[int, Buffers]:
    held = {number: coded_buffers("run", master.address, number, 1) for number in range(3)}
    in_threads([one.attach for one in held.values()], 60)
    for step in range(1, 1 + steps):
        in_threads([partial(take_coded, one, number, step, COUNT) for number, one in held.items()], 60)
    wait_for(lambda: survives(held, 1))
    return held


def lost_and_back(held: dict[int, Buffers], number: int, master: Master) -> Buffers:
    """Its host; on a new one."""
    os.kill(keeper_pid(f"k{number}"), signal.SIGKILL)
    held.pop(number).close(free=False)
    after = coded_buffers("run", master.address, number, 1, keeper="new")
    after.attach()
    return after


@pytest.mark.deadline(120)
def test_nothing_is_left_of_what_was_given_up(master: Master) -> None:
    held = coded(master, 2)
    held[0].forget(-1)
    others = {number: held[number] for number in (1, 2)}
    wait_for(lambda: survives(others, 1))  # without it
    assert holders(0) == ["k0"], "its buffers are there, and nothing in them"
    after = lost_and_back(held, 0, master)
    with pytest.raises(NoSnapshotError):
        after.fetch(30.0)
    take_coded(after, 0, 1, COUNT)
    step, data = restored(after, COUNT)
    assert step == 1 and np.array_equal(data, content(0, 1, COUNT)), "it begins anew"
    for one in (after, *held.values()):
        one.close(free=True)


@pytest.mark.deadline(120)
def test_an_older_one_that_was_kept_is_what_comes_back(master: Master) -> None:
    held = coded(master, 2)
    held[0].forget(1)
    assert held[0].newest_step == 1
    wait_for(lambda: held[0].keeper is not None and held[0].keeper.await_coded(0, 1.0).step == 1)
    wait_for(lambda: survives(held, 1))
    after = lost_and_back(held, 0, master)
    after.fetch(30.0)
    step, data = restored(after, COUNT)
    assert step == 1 and np.array_equal(data, content(0, 1, COUNT))
    for one in (after, *held.values()):
        one.close(free=True)
