"""Operations that are waited for, cancelled, or take too long."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch

from pccl_py import Cancelled, Communicator, Master, OperationTimeout, UsageError

from .peers import together


def test_a_timeout_ends_it_on_every_peer(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        array = np.ones(3)
        if comm.rank == 0:
            with pytest.raises(OperationTimeout, match="all_reduce"):
                comm.all_reduce(array, timeout=0.2)
            with pytest.raises(TimeoutError):
                comm.all_reduce(array, timeout=0.2, tag=5)
        else:
            time.sleep(0.6)
            for tag in (None, 5):
                with pytest.raises(OperationTimeout):
                    comm.all_reduce(array, tag=tag)
        assert np.all(array == 1)
        comm.all_reduce(array)
        assert np.all(array == 2)

    together(master.address, 2, play)


@pytest.mark.parametrize("timeout", ["x", -1, True, float("nan")])
def test_wrong_timeouts_of_a_wait(master: Master, timeout: Any) -> None:
    with Communicator(master.address) as comm:
        work = comm.all_reduce(np.ones(3), async_op=True)
        with pytest.raises(UsageError, match="timeout="):
            work.wait(timeout)
        work.wait(5)
        work.wait(0)


def test_waiting_for_a_while_leaves_it_running(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        array = np.ones(3)
        if comm.rank == 0:
            work = comm.all_reduce(array, async_op=True)
            with pytest.raises(OperationTimeout, match="still runs after 0.1 s"):
                work.wait(0.1)
            assert not work.is_completed() and work.info is None
            assert "running" in repr(work)
            comm.barrier(tag=1)
            assert work.wait(20).attempts == 1
            assert "committed" in repr(work)
        else:
            comm.barrier(tag=1)
            comm.all_reduce(array)
        assert np.all(array == 2)

    together(master.address, 2, play)


def test_when_the_result_was_whole(master: Master) -> None:
    """Before the commit, which waits for the slowest peer; after what this peer waited for the others."""

    def play(comm: Communicator, index: int) -> None:
        rank = comm.rank  # asked while both are there: who outlives the other becomes rank 0
        small, large = np.ones(256, np.float32), np.ones(1 << 20, np.float32)
        for array in (small, large):
            info = comm.all_reduce(array, tag=array.size)
            assert 0 < info.seconds_to_result < info.seconds
            assert np.all(array == 2)
        comm.barrier()
        if rank == 1:
            time.sleep(0.2)
        info = comm.all_reduce(small)
        assert (info.seconds_to_result >= 0.1) == (rank == 0)
        assert 0 < info.seconds_to_result < info.seconds

    together(master.address, 2, play)


def test_cancel(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        array = np.ones(3)
        if comm.rank == 0:
            work = comm.all_reduce(array, async_op=True)
            work.cancel()
            for _ in range(2):
                with pytest.raises(Cancelled):
                    work.wait()
            assert work.info is None and "failed" in repr(work)
            comm.barrier(tag=1)
        else:
            comm.barrier(tag=1)  # not earlier: two that have both posted it may commit before the cancel
            with pytest.raises(Cancelled):
                comm.all_reduce(array)
        assert np.all(array == 1)
        comm.all_reduce(array)
        assert np.all(array == 2)

    together(master.address, 2, play)


def test_the_work_keeps_tensors_alive(master: Master) -> None:
    """Tensors and list are the caller's to forget; the result goes to memory that still exists."""

    def play(comm: Communicator, index: int) -> None:
        works = []
        for tag in range(20):
            tensors = [np.ones(50_000), torch.ones(50_000)]
            works.append(comm.all_reduce(tensors, tag=tag, async_op=True))
            tensors.clear()
        trash = [np.full(50_000, 7.0) for _ in range(40)]
        for work in works:
            work.wait()
        assert all(np.all(array == 7) for array in trash)

    together(master.address, 2, play)
