"""Real peers in an emulated network of 20 ms RTT that is cut while they reduce: every value is right, nobody
hangs, who was left out is told and comes back.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from stress.net import Emulator

from .emulated import Inside, emulator

LIMIT_S = 1.2  # of heartbeats, for the scripts below

_CONFIG = "Config(heartbeat_ms=100, heartbeats_missed_max=12, reconnect_ms=800, master_lost_ms=2000)"

# ADDRESS: listens there, says where.
MASTER = f"""
import sys, time
from pccl_py import Config, Master
master = Master(sys.argv[1] + ":0", insecure=True, config={_CONFIG})
print("ready", master.address, flush=True)
time.sleep(600)
"""

# MASTER PEERS BYTES: reduces and offers a boundary for ever, and says what it sees as lines of JSON.
# Each contributes two to the power of its id, so that a sum tells who is in it.
PEER = f"""
import json, sys, time
import numpy as np
from pccl_py import Communicator, Config, Evicted, MasterLost, OutcomeUnknown
def say(what, **more): print(json.dumps(dict(what=what, t=time.monotonic(), **more)), flush=True)
comm = Communicator(sys.argv[1], insecure=True, min_islands=int(sys.argv[2]), config={_CONFIG})
array = np.empty(int(sys.argv[3]) // 4, np.float32)
say("joined", id=comm.id)
while True:
    try:
        array.fill(1 << comm.id)
        info = comm.all_reduce(array)
        right = bool((array == sum(1 << peer for peer in info.contributors)).all())
        say("sum", right=right, contributors=info.contributors, attempts=info.attempts)
        comm.update_topology()
    except (Evicted, MasterLost, OutcomeUnknown) as error:
        say("gone", error=type(error).__name__, text=str(error))
        while True:
            try:
                comm.rejoin(timeout=20)
                break
            except Exception as error:
                say("refused", error=type(error).__name__, text=str(error))
                time.sleep(0.2)
        say("joined", id=comm.id)
"""


class Told:
    """What a peer says, read by a thread of its own. Times are those of the peer, of the same clock."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.records: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._read, args=(process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._changed:
                self.records.append(json.loads(line))
                self._changed.notify_all()

    def wait(self, wanted: Callable[[dict[str, Any]], bool], *, since: float, within_s: float) -> Any:
        """The first record after the time `since` that is wanted."""
        until = time.monotonic() + within_s
        with self._changed:
            while True:
                for record in self.records:
                    if record["t"] > since and wanted(record):
                        return record
                left = until - time.monotonic()
                assert left > 0, f"nothing of that for {within_s} s; the last: {self.records[-3:]}"
                self._changed.wait(left)

    def wait_for_sum(self, peers: int, *, since: float, within_s: float) -> dict[str, Any]:
        """The first result after `since` that so many contributed to."""
        record: dict[str, Any] = self.wait(
            lambda r: r["what"] == "sum" and len(r["contributors"]) == peers, since=since, within_s=within_s
        )
        return record


@contextmanager
def group(
    inside: Inside, net: Emulator, size: int = 256 << 10, *, count: int = 3, config: str = _CONFIG
) -> Iterator[list[Told]]:
    """Peers 0 to 2 and the master in 3, reducing; at the end no value was wrong."""
    master = inside(net, count, MASTER.replace(_CONFIG, config), net.addresses[count])
    assert master.stdout is not None
    address = master.stdout.readline().split()[1]
    script = PEER.replace(_CONFIG, config)
    peers = [Told(inside(net, i, script, address, count, size)) for i in range(count)]
    for told in peers:
        told.wait_for_sum(count, since=0, within_s=30)
    yield peers
    for told in peers:
        assert all(record["right"] for record in told.records if record["what"] == "sum")


def gone(told: Told) -> list[str]:
    return [record["text"] for record in told.records if record["what"] == "gone"]


@pytest.mark.parametrize(
    "link", [(0, 1), *(pytest.param(n, marks=pytest.mark.nightly) for n in ((1, 0), (2, 0)))]
)
def test_link_cut_one_way(inside: Inside, link: tuple[int, int]) -> None:
    """Longer than the limit of heartbeats, which go to the master and come through. Whether the peers wait or
    one of them is left out meanwhile, in the end all three reduce together."""
    with emulator(4, rtt_ms=20, rate_mbit=200) as net, group(inside, net) as peers:
        net.cut(*link, one_way=True)
        time.sleep(2 * LIMIT_S)
        healed = time.monotonic()
        net.heal()
        for told in peers:
            told.wait_for_sum(3, since=healed, within_s=30)


def test_link_cut_for_good(inside: Inside) -> None:
    """Two of three cannot reach each other any more, though both reach the master: one is left out, and told;
    the others go on."""
    with emulator(4, rtt_ms=20, rate_mbit=200) as net, group(inside, net) as peers:
        cut = time.monotonic()
        net.cut(0, 1)
        peers[2].wait_for_sum(2, since=cut, within_s=50)
        stayed = [told for told in peers[:2] if not gone(told)]
        assert len(stayed) == 1
        stayed[0].wait_for_sum(2, since=cut, within_s=5)
        assert not gone(peers[2])


def test_peer_isolated(inside: Inside) -> None:
    """It is evicted, the others go on; it learns of it, and is a member again once it can."""
    with emulator(4, rtt_ms=20, rate_mbit=200) as net, group(inside, net) as peers:
        isolated = time.monotonic()
        net.isolate(1)
        for told in (peers[0], peers[2]):
            without = told.wait_for_sum(2, since=isolated, within_s=20)
            assert without["t"] - isolated < LIMIT_S + 5
            assert not gone(told)
        peers[1].wait(lambda record: record["what"] == "gone", since=isolated, within_s=20)
        net.reconnect(1)
        healed = time.monotonic()
        for told in peers:
            told.wait_for_sum(3, since=healed, within_s=30)


def test_master_out_of_sight_for_a_while(inside: Inside) -> None:
    """Shorter than the limits: nobody is gone, and everybody goes on."""
    with emulator(4, rtt_ms=20, rate_mbit=200) as net, group(inside, net) as peers:
        net.isolate(3)
        time.sleep(LIMIT_S / 2)
        net.reconnect(3)
        healed = time.monotonic()
        for told in peers:
            told.wait_for_sum(3, since=healed, within_s=20)
            assert not gone(told)


def test_lossy_reordering_links(inside: Inside) -> None:
    with emulator(4, rtt_ms=20, rate_mbit=100, loss=0.02, jitter_ms=10, reorder=True) as net:
        with group(inside, net) as peers:
            now = time.monotonic()
            for told in peers:
                told.wait_for_sum(3, since=now + 5, within_s=30)
                assert not gone(told)


def test_slow_is_not_stuck(inside: Inside) -> None:
    """An operation that takes twice its deadline, and moves all the while, is neither repeated nor blamed on
    anybody. Peers tell once in a second that it moves."""
    config = _CONFIG.replace("Config(", "Config(deadline_floor_ms=3500, ")
    with emulator(3, rtt_ms=20, rate_mbit=8) as net:
        with group(inside, net, 7 << 20, count=2, config=config) as peers:
            for told in peers:
                first = told.wait_for_sum(2, since=0, within_s=1)
                assert first["attempts"] == 1
                assert not gone(told)
