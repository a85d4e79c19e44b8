"""Peers that leave: with operations in flight, twice, or by being forgotten."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pccl_py import ClosedError, Communicator, Master, UsageError

from .peers import QUICK, together


def test_leaving_with_operations_in_flight(master: Master) -> None:
    """They end here; the others repeat them without the one that left."""

    def play(comm: Communicator, index: int) -> None:
        array = np.ones(3)
        if comm.rank == 0:
            work = comm.all_reduce(array, async_op=True)
            time.sleep(0.1)
            comm.leave()
            comm.leave()
            with pytest.raises(ClosedError):
                work.wait()
            with pytest.raises(ClosedError):
                comm.all_reduce(array)
            with pytest.raises(ClosedError):
                comm.rejoin()
        else:
            time.sleep(0.3)
            assert len(comm.all_reduce(array).contributors) == 2
            assert np.all(array == 2)

    together(master.address, 3, play)


def test_after_leaving(master: Master) -> None:
    with Communicator(master.address) as comm:
        pass
    for call in (
        lambda: comm.all_reduce(np.ones(3)),
        lambda: comm.rank,
        comm.update_topology,
        comm.peers,
        comm.rejoin,
    ):
        with pytest.raises(ClosedError):
            call()
    comm.leave()
    assert "Communicator" in repr(comm)


def test_collected_without_leaving(master: Master) -> None:
    """A communicator that is only forgotten leaves the run as well."""
    comm = Communicator(master.address, config=QUICK)
    assert len(master.status()["peers"]) == 1
    del comm
    deadline = time.monotonic() + 5
    while master.status()["peers"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert master.status()["peers"] == []


def test_rejoin_of_a_member_is_refused(master: Master) -> None:
    with Communicator(master.address) as comm, pytest.raises(UsageError, match="this one is a member"):
        comm.rejoin()
