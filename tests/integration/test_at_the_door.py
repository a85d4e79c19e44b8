"""What a peer is told while it waits outside, and when its time is over; islands that come again."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from functools import partial
from typing import Any

import numpy as np
import pytest

from pccl_py import Communicator, ConnectError, Master, OperationTimeout
from tests.conftest import Spawn
from tests.threads import in_threads

from .logged import logged
from .peers import PEER, QUICK, expect


def test_nobody_listens_and_the_time_is_over(free_port: int) -> None:
    with pytest.raises(ConnectError) as caught:
        Communicator(f"localhost:{free_port}", timeout=0.5)
    text = str(caught.value)
    assert text.startswith("not admitted within 500 ms: localhost:")
    assert f"127.0.0.1:{free_port}" in text and "refused" in text
    assert "python -m pccl_py master" in text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"min_islands": 2}, r"within 700 ms: 1 of 2 islands are at the door \(peer-1\)$"),
        ({"island": "a", "island_size": 2}, "within 700 ms: rank 1 of island 'a' has not come$"),
        (
            {"island": "a", "island_size": 3, "group": 1, "min_islands": 2},
            "0 of 2 islands are at the door; ranks 0 and 2 of island 'a' have not come$",
        ),
    ],
)
def test_who_has_not_come(master: Master, options: Any, text: str) -> None:
    with pytest.raises(OperationTimeout, match=text):
        Communicator(master.address, timeout=0.7, **options)


def test_an_incomplete_island_at_a_run_that_has_begun(master: Master) -> None:
    with (
        Communicator(master.address),
        pytest.raises(OperationTimeout, match="rank 0 of island 'a' has not come$"),
    ):
        Communicator(master.address, island="a", island_size=2, group=1, timeout=0.7)


def test_whoever_waits_alone_is_told_once(master: Master, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OperationTimeout):
        Communicator(master.address, min_islands=2, timeout=3.5)
    assert sorted(logged(caplog, "1 of 2 islands", 2)) == [
        "not in the run yet: 1 of 2 islands are at the door (peer-1)",
        "the run cannot begin yet: 1 of 2 islands are at the door (peer-1)",
    ]


def test_nobody_comes_to_the_boundary(master: Master, caplog: pytest.LogCaptureFixture) -> None:
    with Communicator(master.address), pytest.raises(OperationTimeout, match="update_topology"):
        Communicator(master.address, island="late", timeout=2.5)
    assert sorted(logged(caplog, "update_topology", 2)) == [
        "island late waits at the door for the members' next update_topology()",
        "not in the run yet: members let newcomers in at their next update_topology()",
    ]


def test_a_name_that_is_taken_is_waited_for(master: Master) -> None:
    with (
        Communicator(master.address, island="blue"),
        pytest.raises(OperationTimeout, match=r"island 'blue' is in the run already \(process \d+ on .+\)"),
    ):
        Communicator(master.address, island="blue", timeout=0.7)


BLUE = """
comm = Communicator(address, island="blue", min_islands=int(sys.argv[2]), config=config, timeout=30)
say("in", comm.id)
array = np.full(3, float(sys.argv[3]))
comm.all_reduce(array)
say("sum", array[0])
time.sleep(600)
"""


@pytest.mark.stops_peers
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_an_island_is_started_again_at_once(master: Master, spawn: Spawn, how: signal.Signals) -> None:
    """Killed or stopped, it is still a member when it comes again under its name."""
    first = spawn("-c", PEER + BLUE, master.address, "2", "10")
    with Communicator(master.address, min_islands=2, config=QUICK) as comm:
        array = np.ones(3)
        old = comm.all_reduce(array).contributors
        assert np.all(array == 11)
        first.send_signal(how)
        second = spawn("-c", PEER + BLUE, master.address, "1", "100")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            members = [p.id for p in comm.peers()]  # of one view
            if len(members) == 2 and old[-1] not in members:
                break
            comm.update_topology()
            time.sleep(0.01)
        array = np.ones(3)
        new = comm.all_reduce(array).contributors
        assert np.all(array == 101)
        assert new[0] == comm.id and new[1] == int(expect(second, "in")) and new[1] not in old
        assert float(expect(second, "sum")) == 101
        assert [peer.island for peer in comm.peers()][-1] == "blue"


WAITS = """
comm = Communicator(address, config=config, timeout=60)
say("in", comm.world_size)
array = np.full(3, 10.0)
comm.all_reduce(array)
say("sum", array[0])
"""


@pytest.mark.stops_peers
def test_whoever_was_stopped_at_the_door_knocks_again(master: Master, spawn: Spawn) -> None:
    def until_there_wait(count: int) -> None:
        deadline = time.monotonic() + 30
        while master.status()["waiting"] != count and time.monotonic() < deadline:
            time.sleep(0.02)
        assert master.status()["waiting"] == count

    with Communicator(master.address, config=QUICK) as comm:
        late = spawn("-c", PEER + WAITS, master.address)
        until_there_wait(1)
        late.send_signal(signal.SIGSTOP)
        until_there_wait(0)
        late.send_signal(signal.SIGCONT)
        until_there_wait(1)
        while comm.world_size < 2:
            comm.update_topology()
            time.sleep(0.02)
        array = np.ones(3)
        comm.all_reduce(array)
        assert np.all(array == 11)
        assert expect(late, "in") == "2" and float(expect(late, "sum")) == 11


STOPPED = """
comm = Communicator(address, min_islands=2, config=config)
say("in", comm.id)
sys.stdin.readline()
while True:
    try:
        comm.all_reduce(np.ones(3))
    except Evicted as error:
        say("told", error)
        break
for ask in ("rank", "world_size", "islands", "peers"):
    try:
        value = getattr(comm, ask)
        say("asked", value() if callable(value) else value)
    except Evicted as error:
        say("asked Evicted", "silent" in str(error))
comm.rejoin(timeout=30)
say("back", comm.world_size)
comm.barrier()  # until the other one has seen it
"""


@pytest.mark.stops_peers
def test_an_evicted_peer_learns_why(master: Master, spawn: Spawn) -> None:
    stopped = spawn("-c", PEER + STOPPED, master.address, stdin=subprocess.PIPE)
    with Communicator(master.address, min_islands=2, config=QUICK) as comm:
        victim = expect(stopped, "in")
        stopped.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 30
        while comm.world_size == 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(1.5)  # the master has closed its connection; it will have to ask
        stopped.send_signal(signal.SIGCONT)
        assert stopped.stdin is not None
        print("go", file=stopped.stdin, flush=True)
        told = expect(stopped, "told")
        assert f"peer {victim} was silent for 1 s (heartbeats_missed_max=10)" in told and "rejoin()" in told
        for _ in range(4):
            assert expect(stopped, "asked") == "Evicted True"
        comm.wait_for(2, timeout=30)
        assert expect(stopped, "back") == "2"
        comm.barrier()


def test_how_many_islands_are_missing(master: Master) -> None:
    with (
        Communicator(master.address) as comm,
        pytest.raises(OperationTimeout, match="the run has 1 of 3 islands"),
    ):
        comm.wait_for(3, timeout=0.1)


def test_who_came_in_is_named(master: Master, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pccl_py")
    with Communicator(master.address, config=QUICK) as comm:
        done = threading.Event()

        def newcomer(name: str) -> None:
            with Communicator(master.address, island=name, config=QUICK):
                done.wait(20)

        def let_in() -> None:
            while comm.waiting < 2:
                time.sleep(0.005)
            comm.update_topology()
            assert comm.islands == 3
            done.set()

        in_threads([partial(newcomer, "green"), partial(newcomer, "blue"), let_in])
    lines = logged(caplog, "view 2 of 3 peers")
    assert "view 2 of 3 peers: islands blue and green came in" in [
        line.replace("green and blue", "blue and green") for line in lines
    ]
