"""Broadcasts from every root, roots that differ or leave, and the barrier."""

from __future__ import annotations

import threading
import time
from functools import partial

import numpy as np
import pytest
import torch

from pccl_py import Communicator, Master, MismatchError, OpInfo, PeerLost
from tests.conftest import Spawn
from tests.threads import in_threads

from .peers import PEER, QUICK, expect, together


def test_broadcast_and_barrier(master: Master) -> None:
    def play(comm: Communicator, index: int) -> float:
        for root in range(3):
            tensors = [np.full(1000, float(comm.rank)), torch.full((7,), comm.rank, dtype=torch.uint8)]
            info = comm.broadcast(tensors, root)
            assert isinstance(info, OpInfo)
            assert np.all(tensors[0] == root) and torch.all(tensors[1] == root)
        time.sleep(0.2 * comm.rank)
        begin = time.monotonic()
        comm.barrier()
        return time.monotonic() - begin if comm.rank == 0 else 0.4

    assert max(together(master.address, 3, play)) >= 0.35


def test_different_roots_are_a_mismatch(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        with pytest.raises(MismatchError):
            comm.broadcast(np.ones(3), comm.rank)

    together(master.address, 2, play)


def test_a_root_that_leaves(master: Master) -> None:
    """Nobody else has its tensors, so there is nothing to retry."""

    def play(comm: Communicator, index: int) -> None:
        if comm.rank == 0:
            time.sleep(0.3)
            return
        array = np.ones(100_000)
        with pytest.raises(PeerLost, match="root"):
            comm.broadcast(array, 0)
        assert np.all(array == 1)
        comm.all_reduce(array)

    together(master.address, 3, play)


LOOP = """
comm = Communicator(address, min_islands=4, config=config, island="victim")
root = min((p for p in comm.peers() if p.island != "victim"), key=lambda p: p.id)
say("in")
while True:
    for count in (1000, 50_000, 300_000):
        comm.broadcast(np.empty(count, int), root.rank)
"""


def test_a_kill_inside_each_plan(master: Master, spawn: Spawn) -> None:
    """One hop, two hops, the ring: who is left gets every value, once the dead one is out of the way."""
    victim = spawn("-c", PEER + LOOP, master.address)
    inside = threading.Event()

    def watch() -> None:
        expect(victim, "in")
        inside.set()

    def survive(index: int) -> int:
        with Communicator(master.address, min_islands=4, config=QUICK) as comm:
            root_id = min(p.id for p in comm.peers() if p.island != "victim")
            contributors = 0
            for turn in range(40):
                for count in (1000, 50_000, 300_000):
                    root = next(p.rank for p in comm.peers() if p.id == root_id)
                    array = np.arange(count) + turn if comm.id == root_id else np.zeros(count, int)
                    info = comm.broadcast(array, root)
                    assert isinstance(info, OpInfo)
                    contributors = len(info.contributors)
                    assert np.array_equal(array, np.arange(count) + turn)
                if comm.id == root_id and turn == 10 and inside.wait(20):
                    victim.kill()
            comm.barrier()
            return contributors

    results = in_threads([*[partial(survive, index) for index in range(3)], watch])[:3]
    assert results == [3, 3, 3]
