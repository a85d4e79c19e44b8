"""Processes that fork after they have connected."""

from __future__ import annotations

import os

import numpy as np

from pccl_py import Communicator, Master
from tests.conftest import Spawn

from .peers import PEER, QUICK, expect

FORK = """
comm = Communicator(address, min_islands=2, config=config)
child = os.fork()
if child == 0:
    for call in (lambda: comm.all_reduce(np.ones(3)), lambda: comm.rank, comm.update_topology):
        try:
            call()
        except UsageError as error:
            say("child", error)
    comm.leave()
    sys.exit(0)
say("status", os.waitpid(child, 0)[1])
array = np.ones(3)
comm.all_reduce(array)
say("parent", array[0], comm.world_size)
"""


def test_fork_after_connect(master: Master, spawn: Spawn) -> None:
    process = spawn("-c", PEER + FORK, master.address)
    with Communicator(master.address, min_islands=2, config=QUICK) as comm:
        for _ in range(3):
            assert "inherited by a fork" in expect(process, "child")
        assert expect(process, "status") == "0"
        comm.all_reduce(np.ones(3))
        assert expect(process, "parent") == "2.0 2"


def test_a_forked_child_does_not_stop_the_master(master: Master) -> None:
    child = os.fork()
    if child == 0:
        master.stop()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with Communicator(master.address) as comm:
        comm.all_reduce(np.ones(3))
