"""Many small operations at once: what they cost, and that nobody falls behind over them."""

from __future__ import annotations

import numpy as np

from pccl_py import Communicator, Master
from tests.conftest import Spawn

from .peers import PEER, QUICK, expect

COUNT = 1000

SOURCE = f"""
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
comm = Communicator(address, min_islands=2, config=config)
comm.all_reduce(np.ones(16))
arrays = [np.full(16, float(tag)) for tag in range({COUNT})]
before = resident()
works = [comm.all_reduce(array, tag=tag, async_op=True) for tag, array in enumerate(arrays)]
most = 0
for tag, work in enumerate(works):
    work.wait()
    most = max(most, resident()) if tag % 50 == 0 else most
say("grown", max(most, resident()) - before)
say("right", all(np.all(array == tag + 1000.0) for tag, array in enumerate(arrays)))
say("world", comm.world_size)
comm.barrier()
"""


def test_many_tiny_operations_in_place(master: Master, spawn: Spawn) -> None:
    process = spawn("-c", PEER + SOURCE, master.address)
    with Communicator(master.address, min_islands=2, config=QUICK) as comm:
        comm.all_reduce(np.ones(16))
        arrays = [np.full(16, 1000.0) for _ in range(COUNT)]
        works = [comm.all_reduce(array, tag=tag, async_op=True) for tag, array in enumerate(arrays)]
        for work in works:
            assert len(work.wait().contributors) == 2
        assert all(np.all(array == tag + 1000.0) for tag, array in enumerate(arrays))
        assert int(expect(process, "grown")) < 20e6
        assert expect(process, "right") == "True"
        assert expect(process, "world") == "2"
        comm.barrier()
