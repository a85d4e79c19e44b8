"""Peers that are killed or stopped while others reduce with them."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from functools import partial
from typing import Any

import numpy as np
import pytest

from pccl_py import Communicator, Master, PeerLost, SharedState
from tests.conftest import Spawn
from tests.threads import in_threads

from .peers import PEER, QUICK, expect

SURVIVE = """
comm = Communicator(address, min_islands=3, config=config)
digit, step = 10.0 ** comm.rank, 0
while True:
    comm.all_reduce(np.full(int(sys.argv[2]), digit), on_loss=sys.argv[3], algorithm=sys.argv[4])
    step += 1
    if step == 10: say("ready", comm.rank, comm.id)
"""


def add_digit(comm: Communicator, digit: float, count: int, **options: Any) -> int:
    """One all-reduce in place, of numbers that tell who is in their sum. Returns how many contributed."""
    array = np.full(count, digit)
    try:
        info = comm.all_reduce(array, **options)
    except PeerLost:
        assert np.all(array == digit)
        raise
    assert np.all(array == array[0])
    assert array[0] in ([111] if len(info.contributors) == 3 else [101, 110, 11])
    return len(info.contributors)


@pytest.mark.parametrize("count", [100, 1 << 20])
@pytest.mark.parametrize("on_loss", ["retry", "raise"])
@pytest.mark.parametrize("algorithm", ["auto", "ring", "direct", "exchange"])
def test_a_killed_peer_costs_one_repetition(
    master: Master, spawn: Spawn, count: int, on_loss: str, algorithm: str
) -> None:
    """The survivors' results hold exactly the survivors' contributions, in place, at every step."""
    victim = spawn("-c", PEER + SURVIVE, master.address, str(count), on_loss, algorithm)
    ready = threading.Event()

    def watch() -> None:
        expect(victim, "ready")
        ready.set()

    def survive(index: int) -> tuple[int, int]:
        with Communicator(master.address, min_islands=3, config=QUICK) as comm:
            digit = 10.0**comm.rank
            lost = after = 0
            deadline = time.monotonic() + 40
            while after < 20 and time.monotonic() < deadline:
                try:
                    after += add_digit(comm, digit, count, on_loss=on_loss, algorithm=algorithm) == 2
                except PeerLost:
                    lost += 1
                if index == 0 and ready.is_set():
                    victim.kill()
            return lost, after

    results = in_threads([partial(survive, 0), partial(survive, 1), watch])[:2]
    assert [after for _, after in results] == [20, 20]
    assert on_loss == "raise" or not any(lost for lost, _ in results)


FORKED_WORKER = """
comm = Communicator(address, min_islands=2, config=config)
if os.fork() == 0:
    time.sleep(60)
say("ready")
while True: comm.all_reduce(np.ones(3))
"""


def test_a_killed_peer_with_workers_is_noticed_at_once(master: Master, spawn: Spawn) -> None:
    """Its forked children live on, but hold no connection of ours open."""
    process = spawn("-c", PEER + FORKED_WORKER, master.address)
    with Communicator(master.address, min_islands=2, config=QUICK) as comm:
        expect(process, "ready")
        comm.all_reduce(np.ones(3))
        process.kill()
        begin = time.monotonic()
        while len(comm.all_reduce(np.ones(3)).contributors) == 2:
            pass
        assert time.monotonic() - begin < 0.5  # the heartbeat limit here is 1 s


SLEEPER = """
comm = Communicator(address, min_islands=2, config=config)
say("member", comm.id)
sys.stdin.readline()
try:
    while True:
        comm.all_reduce(np.ones(3)); time.sleep(0.01)
except Evicted as error:
    say("evicted", error)
comm.rejoin(timeout=20)
state = SharedState({"x": np.zeros(3)})
comm.sync_shared_state(state)
say("back", comm.rank, comm.world_size, state.tensors["x"][0], state.revision)
"""


@pytest.mark.stops_peers
def test_rejoin_after_eviction(master: Master, spawn: Spawn) -> None:
    """A peer that is stopped for longer than its heartbeats may fail is told, and comes back as a new one."""

    stopped = spawn("-c", PEER + SLEEPER, master.address, stdin=subprocess.PIPE)
    with Communicator(master.address, min_islands=2, config=QUICK) as comm:
        expect(stopped, "member")
        stopped.send_signal(signal.SIGSTOP)
        array = np.ones(3)
        comm.all_reduce(array)  # returns when the other one is evicted
        assert np.all(array == 1)
        stopped.send_signal(signal.SIGCONT)
        assert stopped.stdin is not None
        stopped.stdin.write("\n")
        stopped.stdin.flush()
        assert expect(stopped, "evicted")
        comm.wait_for(2, timeout=20)
        comm.sync_shared_state(SharedState({"x": np.full(3, 5.0)}, 4))
        assert expect(stopped, "back") == "1 2 5.0 4"
