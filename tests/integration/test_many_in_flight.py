"""Many small operations at once: what they cost, and that nobody falls behind over them."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from pccl_py import Communicator, Config, Master
from tests.conftest import Spawn

from .peers import PEER, expect

COUNT = 1000
# What is looked at here takes a busy machine its time: nobody is lost over that.
PATIENT = Config(heartbeats_missed_max=40)

SOURCE = f"""
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
comm = Communicator(address, min_islands=2, config=Config(heartbeats_missed_max=40))
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


def test_many_tiny_operations_in_place(spawn: Spawn) -> None:
    with Master("127.0.0.1:0", config=PATIENT) as master:
        process = spawn("-c", PEER + SOURCE, master.address)
        run_with(process, master.address)


def run_with(process: subprocess.Popen[str], address: str) -> None:
    with Communicator(address, min_islands=2, config=PATIENT) as comm:
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


# ADDRESS: more large operations than a peer may offer chunks of at a time, by the second peer in the opposite
# order, and by the third before the others, so that both may send to it whatever they like.
OPPOSITE = """
patient = Config(heartbeats_missed_max=40)
with Communicator(address, min_islands=3, config=patient, transport=sys.argv[2]) as comm:
    data, tags = pccl_py.share(np.full(3 << 16, comm.id, np.float32)), range(1, 1201)
    out = np.empty((3 << 16,), np.float32)
    if comm.id != 3: comm.barrier()
    works = [comm.all_reduce(data, out=out, tag=tag, async_op=True, algorithm="direct", timeout=40)
             for tag in (reversed(tags) if comm.id == 2 else tags)]
    if comm.id == 3: comm.barrier()
    for work in works: work.wait()
    say("end", bool((out == 6).all()), max(work.info.attempts for work in works))
    comm.barrier()
"""


@pytest.mark.deadline(150)
@pytest.mark.parametrize("transport", ["cma", "shm"])
def test_many_in_opposite_order(spawn: Spawn, transport: str) -> None:
    """Parts of sums stay where they are until all of them are there, but not so many that the parts which
    they wait for may not be offered any more.
    """
    with Master("127.0.0.1:0", config=PATIENT) as master:
        peers = [spawn("-c", PEER + OPPOSITE, master.address, transport) for _ in range(3)]
        assert [expect(peer, "end") for peer in peers] == ["True 1"] * 3
