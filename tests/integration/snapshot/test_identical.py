"""What all hosts hold alike is not coded, and comes back from any one of them; what differs in a single bit
is coded, and comes back with that bit."""

from __future__ import annotations

import copy
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import pccl_py as pccl
from pccl_py import Master, NoSnapshotError
from pccl_py.joined_with import JoinedWith
from pccl_py.snapshot.buffers import Buffers
from tests.threads import in_threads

from .coded_trainer import coded_buffers, restored
from .raw_trainer import BLOCK, plan_of, take
from .replica_trainer import content
from .test_across_hosts import keeper_pid, kill_hosts, master
from .test_repair import wait_for

__all__ = ["master"]  # a fixture
MODULE = "tests.integration.snapshot.replica_trainer"
COUNT = 31 * BLOCK + 12_345
FILE = plan_of(COUNT).file_bytes


class Hosts:
    """Trainer 0 is this process, with a keeper of its own; the others are processes."""

    def __init__(
        self,
        master: Master,
        spawn: Callable[..., Any],
        world: int,
        parity: int,
        private: tuple[int, int] = (0, 0),
    ) -> None:
        self.master, self.parity, self.world = master, parity, world
        self.state = (COUNT, *private)
        self.first = coded_buffers("run", master.address, 0, parity)
        self.first.attach()
        self._spawn = spawn
        self.others: dict[int, subprocess.Popen[str]] = {}
        self.flipped: dict[int, int] = {}

    def take(self, flipped: dict[int, int] | None = None) -> None:
        """All one snapshot; until all of them are coded together."""
        self.flipped = flipped or {}
        for number in range(1, self.world):
            words = map(str, (number, self.parity, *self.state, self.flipped.get(number, -1)))
            self.others[number] = self._spawn("-m", MODULE, self.master.address, *words)
        for other in self.others.values():
            assert other.stdout is not None and other.stdout.readline() == "taken\n"
        take(self.first, 1, content(0, *self.state))
        wait_for(lambda: self.first.await_coded(1, 30.0) == "" and self.losses() >= self.parity)

    def losses(self) -> int:
        self.first.look()
        return 0 if self.first.coded is None else self.first.coded.losses

    def identical(self) -> int:
        self.first.look()
        assert self.first.coded is not None
        return self.first.coded.identical

    def lose(self, numbers: Sequence[int]) -> None:
        kill_hosts({f"k{number}": self.others.pop(number) for number in numbers})

    def successor(self, number: int) -> Buffers:
        """On a new host, with what its predecessor had."""
        found = coded_buffers("run", self.master.address, number, self.parity, keeper=f"new{number}")
        found.attach()
        if not found.kept:
            found.fetch(60.0)
        step, data = restored(found, COUNT)
        assert step == 1
        assert np.array_equal(data, content(number, *self.state, self.flipped.get(number, -1)))
        return found


def parity_bytes(keeper: str) -> int:
    """Of all memory for parities that a keeper has. A mapping has a descriptor of its own to its memory."""
    found: dict[int, int] = {}
    for fd in Path(f"/proc/{keeper_pid(keeper)}/fd").iterdir():
        with suppress(OSError):
            if "pccl-parities" in os.readlink(fd):
                found[fd.stat().st_ino] = fd.stat().st_blocks * 512
    return sum(found.values())


@pytest.mark.deadline(120)
def test_replicas_need_no_parity_and_survive_all_losses_but_one(
    master: Master, spawn: Callable[..., Any]
) -> None:
    hosts = Hosts(master, spawn, 4, 1)
    hosts.take()
    wait_for(lambda: hosts.identical() == FILE)
    wait_for(lambda: hosts.losses() == 3)
    wait_for(lambda: parity_bytes("k0") == 0)
    hosts.lose((1, 2, 3))
    successors = [hosts.successor(number) for number in (1, 2, 3)]
    for one in (hosts.first, *successors):
        one.close(free=True)


def test_status_says_how_much_is_identical(master: Master) -> None:
    """Of two trainers with the same model, each with a position of its own."""
    joined = SimpleNamespace(
        joined_with=JoinedWith(master.address, None, False, False, "", None, None), run_name="run"
    )
    told: dict[int, pccl.SnapshotStatus] = {}

    def train(number: int) -> None:
        name, model = f"k{number}", models[number]
        with pccl.Snapshots(
            joined, parity=1, run="run", trainer=f"t{number}", keeper=name, domain=name
        ) as keep:
            state = {"model": model, "at": {"at": torch.full((1 << 19,), number)}}  # before: wider elements
            for step in range(1, 200):
                keep.take(step, state)
                keep.wait()
                told[number] = keep.status()
                if len(told) == 2 and all(one.identical for one in told.values()):
                    break
                time.sleep(0.05)
            barrier.wait(60)

    first = torch.nn.Linear(1000, 1024)
    models = [first, copy.deepcopy(first)]
    barrier = threading.Barrier(2)
    in_threads([partial(train, number) for number in range(2)], 90)
    count = 1000 * 1024 * 4
    for status in told.values():
        assert status.losses == 1 and status.coded is not None
        assert count - 2 * BLOCK < status.identical < count + BLOCK < status.bytes


@pytest.mark.deadline(120)
@pytest.mark.parametrize(("world", "parity"), [(4, 1), pytest.param(5, 2, marks=pytest.mark.nightly)])
def test_what_is_private_is_coded_beside_what_is_identical(
    master: Master, spawn: Callable[..., Any], world: int, parity: int
) -> None:
    """In the middle: it is brought back before what is beside it, since its last block is filled up."""
    hosts = Hosts(master, spawn, world, parity, (3 * BLOCK, 4 * BLOCK))
    hosts.take()
    coded = 2 * BLOCK  # that it has bytes of
    wait_for(lambda: hosts.identical() == FILE - coded)
    assert hosts.losses() == parity
    rows = coded * parity // (world - parity)
    wait_for(lambda: parity_bytes("k0") <= 2 * (rows + 2 * BLOCK))
    hosts.lose(range(1, 1 + parity))
    successors = [hosts.successor(number) for number in range(1, 1 + parity)]
    for one in (hosts.first, *successors):
        one.close(free=True)


@pytest.mark.deadline(120)
def test_a_replica_that_differs_in_one_bit_is_coded_and_comes_back_with_it(
    master: Master, spawn: Callable[..., Any]
) -> None:
    hosts = Hosts(master, spawn, 4, 1)
    hosts.take({2: 3 * BLOCK})
    wait_for(lambda: hosts.identical() == FILE - BLOCK)
    assert hosts.losses() == 1
    hosts.lose((2,))
    back = hosts.successor(2)
    back.close(free=True)
    hosts.first.close(free=True)


@pytest.mark.deadline(120)
def test_private_bytes_of_too_many_are_gone_though_the_rest_is_there(
    master: Master, spawn: Callable[..., Any]
) -> None:
    hosts = Hosts(master, spawn, 4, 1)
    hosts.take({2: 3 * BLOCK})
    wait_for(lambda: hosts.identical() == FILE - BLOCK)
    hosts.lose((2, 3))
    successor = coded_buffers("run", master.address, 2, 1, keeper="new")
    successor.attach()
    with pytest.raises(NoSnapshotError, match="step 1 of trainer 't2' is gone"):
        successor.fetch(60.0)
    successor.close(free=True)
    hosts.first.close(free=True)
