"""SIGTERM under `protect`, in the process that gets it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pccl_py.state.preemption import Preemption


@pytest.fixture
def heard() -> Iterator[list[float]]:
    """When the training's own handler was called."""
    times: list[float] = []
    former = signal.signal(signal.SIGTERM, lambda number, frame: times.append(time.monotonic()))
    yield times
    signal.signal(signal.SIGTERM, former)


def until(times: list[float], count: int) -> None:
    limit = time.monotonic() + 10
    while len(times) < count and time.monotonic() < limit:
        time.sleep(0.01)
    assert len(times) == count


def test_a_step_hears_it_and_the_former_handler_comes_next(heard: list[float]) -> None:
    one = Preemption(60.0)
    one.begin()
    os.kill(os.getpid(), signal.SIGTERM)
    assert one.waits and not heard
    one.pass_on()
    assert len(heard) == 1 and not one.waits
    os.kill(os.getpid(), signal.SIGTERM)
    until(heard, 2)  # as if nobody stood before it
    one.end()


def test_no_step_ends_after_the_last_one_of_others(heard: list[float]) -> None:
    """Another rank was told to end, and this one goes on into a call that never comes back."""
    one = Preemption(0.2)
    one.begin()
    one.pass_on()
    assert not heard
    os.kill(os.getpid(), signal.SIGTERM)
    until(heard, 1)
    one.end()


def test_nothing_stays_open(heard: list[float]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        one = Preemption(60.0)
        one.begin()
        one.end()
    assert len(os.listdir("/proc/self/fd")) == before
    os.kill(os.getpid(), signal.SIGTERM)
    until(heard, 1)


def test_a_child_dies_as_it_always_did(heard: list[float]) -> None:
    one: Any = Preemption(60.0)
    one.begin()
    os.kill(os.getpid(), signal.SIGTERM)
    one.pass_on()
    one._process -= 1  # as a forked child sees it
    os.kill(os.getpid(), signal.SIGTERM)
    until(heard, 2)
    one._process += 1
    one.end()
