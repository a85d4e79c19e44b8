"""Ctrl-C while a call waits."""

from __future__ import annotations

import numpy as np
import pytest

from pccl_py import Communicator, Master
from tests.conftest import Spawn

from .peers import PEER, QUICK, expect

INTERRUPT = """
comm = Communicator(address, min_islands=2, config=config)
def after(seconds):
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
array = np.ones(3)
for call in (
    lambda: comm.all_reduce(array),
    lambda: comm.update_topology(),
    lambda: comm.sync_shared_state(SharedState({"x": array})),
):
    after(0.3)
    try:
        call()
    except KeyboardInterrupt:
        say("interrupted", array[0])
work = comm.all_reduce(array, tag=3, async_op=True)
after(0.3)
try:
    work.wait()
except KeyboardInterrupt:
    say("interrupted", work.is_completed())
say("go")
work.wait()
say("result", array[0])
comm.all_reduce(array)
say("result", array[0])
"""


def test_ctrl_c_while_waiting(master: Master, spawn: Spawn) -> None:
    """A blocking call is cancelled on all peers, a Work goes on; the communicator stays usable."""
    process = spawn("-c", PEER + INTERRUPT, master.address)
    with Communicator(master.address, min_islands=2, config=QUICK) as comm:
        assert expect(process, "interrupted") == "1.0"
        assert expect(process, "interrupted") == "1.0"
        assert expect(process, "interrupted") == "1.0"
        assert expect(process, "interrupted") == "False"
        expect(process, "go")
        array = np.ones(3)
        comm.all_reduce(array, tag=3)
        assert expect(process, "result") == "2.0"
        for _ in range(2):  # the cancelled ones: the first all_reduce, and the synchronization
            with pytest.raises(Exception, match="cancelled"):
                comm.all_reduce(array)
        comm.all_reduce(array)
        assert expect(process, "result") == "4.0"
    assert process.wait(10) == 0
