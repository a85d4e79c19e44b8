"""A master that is killed."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from pccl_py import ClosedError, Communicator, Config, ConnectError, MasterLost, OutcomeUnknown
from tests.conftest import Spawn
from tests.threads import in_threads

from .peers import expect


def test_the_master_is_killed(spawn: Spawn) -> None:
    """Clear errors on every peer, soon, and no path ends the process."""
    process = spawn("-m", "pccl_py", "master", "--listen", "127.0.0.1:0")
    address = expect(process, "pccl_py master at").split(";")[0]
    config = Config(heartbeat_ms=100, master_lost_ms=500, verdict_ms=500)

    ready = threading.Event()

    def play() -> None:
        with Communicator(address, min_islands=2, config=config) as comm:
            with pytest.raises((MasterLost, OutcomeUnknown)):
                while True:
                    comm.all_reduce(np.ones(1000))
                    ready.set()
            with pytest.raises(MasterLost):
                comm.all_reduce(np.ones(3))
            for call in (lambda: comm.waiting, lambda: comm.world_size):  # who polls it comes to an end
                with pytest.raises(MasterLost):
                    call()
            for _ in range(2):
                with pytest.raises(ConnectError):
                    comm.rejoin(timeout=5)
                with pytest.raises(ClosedError, match="call it again"):
                    comm.all_reduce(np.ones(3))

    def end_master() -> float:
        assert ready.wait(20)
        process.kill()
        return time.monotonic()

    killed_at = in_threads([play, play, end_master])[2]
    assert time.monotonic() - killed_at < 8
