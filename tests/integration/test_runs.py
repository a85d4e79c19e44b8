"""Several runs at one master, and a master that ends with its last peer."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from pccl_py import Communicator, Master, PeerLost, UsageError
from tests.threads import in_threads

from .peers import QUICK, expect


def member(address: str, run: str, rank: int, size: int) -> tuple[int, float]:
    options: dict[str, Any] = {"run_name": run, "start_rank": rank, "min_islands": size, "config": QUICK}
    with Communicator(address, **options) as comm:
        values = np.full(10, len(run) + rank, np.float32)
        comm.all_reduce(values)
        result = comm.rank, float(values[0])
        comm.barrier()
    return result


def test_runs_know_nothing_of_each_other_and_ranks_are_as_asked(master: Master) -> None:
    plays = [
        lambda r=rank, n=name: member(master.address, n, r, 3) for rank in (2, 0, 1) for name in ("a", "bcd")
    ]
    results = in_threads(plays, 30)
    assert results == [(rank, 3 * len(name) + 3.0) for rank in (2, 0, 1) for name in ("a", "bcd")]
    deadline = time.monotonic() + 10
    while master.status()["runs"] != {"": 0}:
        assert time.monotonic() < deadline, master.status()
        time.sleep(0.01)


def test_a_name_is_bounded(master: Master) -> None:
    with pytest.raises(UsageError, match="at most 256 bytes"):
        Communicator(master.address, run_name="x" * 257)
    with pytest.raises(UsageError, match="start_rank=-1"):
        Communicator(master.address, start_rank=-1)


def test_an_orphaned_master_ends(spawn: Any) -> None:
    process = spawn("-m", "pccl_py", "master", "--listen", "127.0.0.1:0", "--orphan-s", "0.4")
    address = expect(process, "pccl_py master at").split(";")[0]
    with Communicator(address, run_name="x", config=QUICK):
        time.sleep(1.2)
        assert process.poll() is None
    started = time.monotonic()
    assert process.wait(10) == 0
    assert time.monotonic() - started < 5


def test_orphan_s_is_checked(spawn: Any) -> None:
    assert spawn("-m", "pccl_py", "master", "--orphan-s", "0").wait(20) == 2


def test_an_operation_for_a_number_of_peers(master: Master) -> None:
    """What torch.distributed's groups are built on: it fails for all where somebody counts on others."""
    from pccl_py.distributed.member import BARRIER, Member

    pytest.importorskip("torch")
    ready = threading.Barrier(2)

    def play(rank: int) -> str:
        with Member(master.address, min_islands=2, start_rank=rank, config=QUICK) as comm:
            ready.wait()
            work = comm.whole(BARRIER, [], None, peers=2 + rank, on_loss="raise", timeout=20)
            with pytest.raises(PeerLost, match="is for 3 peers, and there are 2 now") as caught:
                work.wait()
            comm.whole(BARRIER, [], None, peers=2, on_loss="raise", timeout=20).wait()
            return str(caught.value)

    in_threads([lambda: play(0), lambda: play(1)], 30)
