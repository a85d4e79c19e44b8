"""What waiting for others costs, and what is said meanwhile."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pccl_py import Communicator, Master
from tests.conftest import Spawn

from .logged import logged
from .peers import PEER, QUICK, expect, together


def test_waiting_costs_no_cpu(master: Master, spawn: Spawn) -> None:
    source = """
comm = Communicator(address, min_islands=2, config=config)
say("ready")
begin = time.process_time()
comm.all_reduce(np.ones(3))
say("cpu", time.process_time() - begin)
"""
    process = spawn("-c", PEER + source, master.address)
    with Communicator(master.address, min_islands=2, config=QUICK) as comm:
        expect(process, "ready")
        time.sleep(1.5)
        comm.all_reduce(np.ones(3))
        assert float(expect(process, "cpu")) < 0.08


def test_who_is_missing_is_logged(master: Master, caplog: pytest.LogCaptureFixture) -> None:
    def play(comm: Communicator, index: int) -> int:
        rank, peer = comm.rank, comm.id
        if rank:
            time.sleep(1.5)
        comm.all_reduce(np.ones(3))
        return peer if rank else 0

    late = max(together(master.address, 2, play))
    lines = logged(caplog, "waiting in")
    assert len(lines) == 1 and "all_reduce" in lines[0] and f"peer {late}" in lines[0]
