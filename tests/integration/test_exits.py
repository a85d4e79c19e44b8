"""Interpreters that end with a communicator still open."""

from __future__ import annotations

import numpy as np
import pytest

from pccl_py import Communicator, Master
from tests.conftest import Spawn

from .peers import PEER, QUICK, expect

ENDS = {
    "an operation in flight": "work = comm.all_reduce(np.ones(1 << 20), async_op=True)",
    "a communicator that nobody left": "pass",
    "a daemon thread that waits": (
        "threading.Thread(target=comm.all_reduce, args=(np.ones(3),), daemon=True).start(); time.sleep(0.3)"
    ),
    "daemon threads in every call": (
        "w = comm.all_reduce(np.ones(3), tag=1, async_op=True)\n"
        "threading.Thread(target=w.wait, daemon=True).start()\n"
        "state = SharedState({'x': np.ones(3)})\n"
        "threading.Thread(target=comm.sync_shared_state, args=(state,), daemon=True).start()\n"
        "threading.Thread(target=Communicator, args=(address,), daemon=True).start(); time.sleep(0.3)"
    ),
    "an error": "work = comm.all_reduce(np.ones(3), async_op=True); sys.exit(3)",
    "a cycle": (
        "class C: pass\nc = C(); c.me = c; c.comm = comm; c.w = comm.all_reduce(np.ones(3), async_op=True)"
    ),
    "os._exit": "work = comm.all_reduce(np.ones(3), async_op=True); os._exit(0)",
}


@pytest.mark.parametrize("end", list(ENDS))
def test_the_interpreter_ends(master: Master, spawn: Spawn, end: str) -> None:
    """Neither a hang nor a crash, and the others go on."""
    start = "comm = Communicator(address, min_islands=2, config=config)\nsay('ready')\n"
    process = spawn("-c", PEER + start + ENDS[end], master.address)
    with Communicator(master.address, min_islands=2, config=QUICK) as comm:
        expect(process, "ready")
        assert process.wait(15) == (3 if end == "an error" else 0), process.stdout.read()  # type: ignore[union-attr]
        array = np.ones(3)
        comm.barrier(tag=9)
        comm.all_reduce(array, tag=10)
        assert np.all(array == 1) and comm.world_size == 1
