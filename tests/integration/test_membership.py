"""Peers that come in: their ranks, their groups, and waiting for each other."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import pytest

from pccl_py import Communicator, Master, OperationTimeout
from tests.threads import in_threads

from .peers import QUICK


def let_in(comm: Communicator, first: Communicator) -> None:
    """Goes to the boundary once somebody waits there, of which `first` hears."""
    while not first.waiting:
        time.sleep(0.005)
    assert comm.update_topology()


def test_ranks_follow_admission_and_close_gaps(master: Master) -> None:
    comms = [Communicator(master.address, config=QUICK)]
    try:
        for _ in range(2):
            members = [partial(let_in, comm, comms[0]) for comm in comms]
            comms.append(in_threads([partial(Communicator, master.address), *members])[0])
        assert [comm.rank for comm in comms] == [0, 1, 2]
        assert len({comm.id for comm in comms}) == 3
        peers = comms[2].peers()
        assert [(peer.id, peer.rank) for peer in peers] == [(comm.id, comm.rank) for comm in comms]
        assert {(peer.group, peer.role, peer.island_rank) for peer in peers} == {(0, "trainer", 0)}
        assert all(peer.addresses[0].startswith("127.0.0.1:") for peer in peers)
        comms[0].leave()
        works = [comm.all_reduce(np.ones(2), async_op=True) for comm in comms[1:]]
        for work in works:
            assert work.wait().contributors == (comms[1].id, comms[2].id)
        assert [comm.rank for comm in comms[1:]] == [0, 1]
        assert [comm.world_size for comm in comms[1:]] == [2, 2]
    finally:
        for comm in comms:
            comm.leave()


def test_wait_for(master: Master) -> None:
    """No min_islands: each comes in when it comes, and returns when all are there."""

    def peer(index: int) -> int:
        time.sleep(0.05 * index)
        with Communicator(master.address, config=QUICK) as comm:
            comm.wait_for(3, timeout=20)
            array = np.ones(3)
            comm.all_reduce(array)
            return int(array[0])

    assert in_threads([partial(peer, index) for index in range(3)]) == [3, 3, 3]


def test_wait_for_ends_in_time(master: Master) -> None:
    with Communicator(master.address) as comm:
        with pytest.raises(OperationTimeout):
            comm.wait_for(2, timeout=0.1)
        comm.all_reduce(np.ones(3))


def test_groups_reduce_apart_and_scope_run_commits_together(master: Master) -> None:
    def play(index: int) -> tuple[int, set[int]]:
        island, group = divmod(index, 2)
        options: Any = {"island": f"island-{island}", "island_size": 2, "group": group}
        with Communicator(master.address, min_islands=2, config=QUICK, **options) as comm:
            assert comm.world_size == 2 and comm.islands == 2
            islands = [(island, group) for island in ("island-0", "island-1") for group in (0, 1)]
            assert sorted((peer.island, peer.group) for peer in comm.peers()) == islands
            array = np.ones(100)
            info = comm.all_reduce(array, scope="run")
            assert np.all(array == 2)
            comm.barrier(scope="run")
            return comm.id, set(info.contributors)

    results = in_threads([partial(play, index) for index in range(4)])
    ids = [peer for peer, _ in results]
    assert [contributors for _, contributors in results] == 2 * [{ids[0], ids[2]}, {ids[1], ids[3]}]


def test_a_joiner_and_the_waiting_number(master: Master) -> None:
    with Communicator(master.address, config=QUICK) as first:

        def join() -> None:
            with Communicator(master.address, config=QUICK) as comm:
                array = np.full(3, 10.0)
                comm.all_reduce(array)
                assert comm.rank == 1 and np.all(array == 11)

        def wait_and_let_in() -> None:
            while not first.waiting:
                time.sleep(0.005)
            assert len(first.all_reduce(np.ones(3), scope="run").contributors) == 1
            assert first.update_topology() is True
            assert (first.waiting, first.world_size) == (0, 2)
            array = np.ones(3)
            assert first.all_reduce(array).waiting == 0
            assert np.all(array == 11)

        in_threads([join, wait_and_let_in])


def test_not_admitted_in_time(master: Master) -> None:
    with Communicator(master.address):
        begin = time.monotonic()
        with pytest.raises(OperationTimeout, match="update_topology"):
            Communicator(master.address, timeout=0.2)
        assert time.monotonic() - begin < 3


def test_two_communicators_in_one_process() -> None:
    """Of two runs, each with its master."""
    with Master() as one, Master() as two, Communicator(one.address) as a, Communicator(two.address) as b:
        arrays = np.ones(3), np.ones(3)
        a.all_reduce(arrays[0])
        b.all_reduce(arrays[1])
        assert one.address != two.address
        a.leave()
        b.all_reduce(arrays[1])
