"""Broadcasts from every root, roots that differ or leave, and the barrier."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from pccl_py import Communicator, Master, MismatchError, OpInfo, PeerLost

from .peers import together


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
