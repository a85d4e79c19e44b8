"""A keeper dies between snapshots, and nobody replaces it: the others re-create what it held, and may lose
one more, without a step of any trainer."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from pccl_py import Master
from pccl_py.snapshot import ask
from pccl_py.snapshot.buffers import Buffers
from tests.threads import in_threads

from .coded_trainer import coded_buffers, content, restored, take_coded
from .test_across_hosts import COUNT, keeper_pid, master

__all__ = ["master"]  # a fixture


def lose(held: dict[int, Buffers], number: int) -> None:
    """Its keeper, and it."""
    os.kill(keeper_pid(f"k{number}"), signal.SIGKILL)
    held.pop(number).close(free=False)


def wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def survives(held: dict[int, Buffers], losses: int) -> bool:
    """By what all are told."""
    for one in held.values():
        one.look()
    return all(one.coded is not None and one.coded.losses == losses for one in held.values())


def holders(number: int) -> list[str]:
    """Keepers that have what a trainer took."""
    found = [one for one in map(ask.summary, ask.sockets()) if one is not None]
    return [one.keeper for one in found if f"t{number}" in [trainer.trainer for trainer in one.trainers]]


def test_a_trainer_hears_what_parities_take(master: Master) -> None:
    """Of two generations, each half of its buffer where three keepers code together."""
    held = {number: coded_buffers("run", master.address, number, 1) for number in range(3)}
    in_threads([one.attach for one in held.values()], 60)
    in_threads([partial(take_coded, one, number, 1, COUNT) for number, one in held.items()], 60)
    wait_for(lambda: survives(held, 1) and all(one.parity_bytes == 4 << 20 for one in held.values()))
    assert {one.memory_bytes for one in held.values()} == {8 << 20}
    for one in held.values():
        one.close(free=True)


@pytest.mark.deadline(120)
@pytest.mark.parametrize(("world", "parity"), [(4, 1), pytest.param(6, 3, marks=pytest.mark.nightly)])
def test_losses_one_after_the_other(master: Master, world: int, parity: int) -> None:
    """Down to two keepers, which hold everything of everybody then."""
    held = {number: coded_buffers("run", master.address, number, parity) for number in range(world)}
    in_threads([one.attach for one in held.values()], 60)
    in_threads([partial(take_coded, one, number, 1, COUNT) for number, one in held.items()], 60)
    wait_for(lambda: survives(held, parity))
    for number in range(world - 1, 1, -1):
        lose(held, number)
        wait_for(lambda lost=number: bool(holders(lost)))  # type: ignore[misc]
        wait_for(lambda: survives(held, min(parity, len(held) - 1)))
    assert {one.newest_step for one in held.values()} == {1}, "no trainer took a step for it"
    for number in range(2, world):
        successor = coded_buffers("run", master.address, number, parity, keeper=f"k{number % 2}")
        successor.attach()
        if not successor.kept:
            successor.fetch(30.0)
        step, data = restored(successor, COUNT)
        assert step == 1 and np.array_equal(data, content(number, 1, COUNT))
        successor.close(free=True)
    for one in held.values():
        one.close(free=True)
