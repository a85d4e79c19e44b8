"""Keepers beside trainers at one master: each role has a roster, views and operations of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from pccl_py import Communicator, Master, PeerLost, SharedState
from tests.conftest import Spawn
from tests.threads import in_threads

from .peers import PATIENT, PEER, expect


@pytest.fixture
def master() -> Iterator[Master]:
    """A killed process is known by its connections: silence may last, on a busy machine."""
    with Master(config=PATIENT) as running:
        yield running


OTHER_ROLE = """
comm = Communicator(address, role=sys.argv[2], min_islands=2, config=config)
step = 0
while True:
    array = np.full(1 << 16, 10.0 ** comm.rank)
    comm.all_reduce(array, on_loss="raise")
    assert np.all(array == 11), array[0]
    step += 1
    if step == 5: say("ready", comm.id)
"""


def joined(address: str, role: str, count: int) -> Communicator:
    return Communicator(address, role=role, min_islands=count, config=PATIENT)


def test_roles_do_not_count_each_other(master: Master) -> None:
    together = threading.Barrier(5)

    def play(role: str, count: int) -> tuple[int, float]:
        with joined(master.address, role, count) as comm:
            assert comm.role == role
            assert {peer.role for peer in comm.peers()} == {role}
            assert comm.world_size == len(comm.peers()) == comm.islands == count
            array = np.full(1000, float(2**comm.rank))
            comm.all_reduce(array)
            state = SharedState({"x": np.full(100, comm.id, np.int64)})
            comm.sync_shared_state(state)
            assert not comm.update_topology()
            together.wait(30)
            if comm.rank == 0 and role == "keeper":
                status = master.status()
                assert (len(status["peers"]), len(status["keepers"]["peers"])) == (2, 3)
                assert status["runs"] == {"": 5}
            together.wait(30)
            return comm.id, float(array[0])

    calls = [
        partial(play, role, count) for role, count in (("trainer", 2), ("keeper", 3)) for _ in range(count)
    ]
    results = in_threads(calls)
    assert [total for _, total in results] == [3.0, 3.0, 7.0, 7.0, 7.0]
    assert len({peer for peer, _ in results}) == 5  # no id stands for two peers


@pytest.mark.parametrize(("struck", "role"), [("keeper", "trainer"), ("trainer", "keeper")])
def test_a_killed_peer_of_one_role_is_nothing_to_the_other(
    master: Master, spawn: Spawn, struck: str, role: str
) -> None:
    """Its own role loses it; the other one's operations take one attempt, in one view, with right values."""
    victim = spawn("-c", PEER + OTHER_ROLE, master.address, struck)
    killed, over = threading.Event(), threading.Event()

    def with_victim() -> None:
        try:
            with joined(master.address, struck, 2) as comm:
                while comm.world_size == 2:
                    array = np.full(1 << 16, digit := 10.0**comm.rank)
                    try:
                        info = comm.all_reduce(array, on_loss="raise")
                        assert np.all(array == (11 if len(info.contributors) == 2 else digit))
                    except PeerLost:
                        assert np.all(array == digit)
        finally:
            over.set()

    def watch() -> None:
        expect(victim, "ready")
        time.sleep(0.1)
        victim.kill()
        killed.set()

    def beside() -> int:
        with joined(master.address, role, 2) as comm:
            view, steps, after = comm._peer.view(), 0, 0
            array, out = np.full(1 << 16, 10.0**comm.rank), np.empty(1 << 16)
            while after < 10:
                info = comm.all_reduce(array, out=out)
                assert np.all(out == 11)
                assert (info.attempts, len(info.contributors)) == (1, 2)
                assert comm._peer.view() == view  # the other one leaves after the broadcast at the earliest
                steps += 1
                after += bool(comm.broadcast(flag := np.array([over.is_set()], np.uint8), 0) and flag[0])
            return steps

    results: list[Any] = in_threads([beside, beside, with_victim, watch])
    assert results[0] == results[1] > 10
    assert killed.is_set()


def test_a_run_lasts_while_anybody_of_any_role_is_there(spawn: Spawn) -> None:
    process = spawn("-m", "pccl_py", "master", "--listen", "127.0.0.1:0", "--orphan-s", "0.4")
    address = expect(process, "pccl_py master at").split(";")[0]
    with Communicator(address, run_name="x", role="keeper", config=PATIENT) as keeper:
        with Communicator(address, run_name="x", config=PATIENT) as trainer:
            assert trainer.world_size == keeper.world_size == 1
        time.sleep(1.2)
        assert process.poll() is None
        with Communicator(address, run_name="x", config=PATIENT) as trainer:
            assert trainer.boundaries == 1  # of the same run, which began again for trainers
    expect_line = "run 'x', keepers: view 1 of 1 peers: the run begins"
    assert process.wait(10) == 0
    assert process.stdout is not None
    assert expect_line in process.stdout.read()


def test_island_names_are_of_one_role(master: Master) -> None:
    with (
        Communicator(master.address, island="a", config=PATIENT),
        Communicator(master.address, island="a", role="keeper", config=PATIENT) as keeper,
    ):
        assert keeper.islands == 1
