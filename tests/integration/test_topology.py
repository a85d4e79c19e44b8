"""Orders and plans by measured links, in networks in which the order of admission is a bad ring."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations
from typing import Any

import pytest

from stress.net import Emulator

from .commanded import MASTER, Commanded, close, line_of, on_all
from .emulated import emulator

FAST, SLOW = 160.0, 40.0  # Mbit/s
COUNT = 1 << 20  # float32: 4 MiB


@contextmanager
def network(peers: int = 5) -> Iterator[Emulator]:
    """Each peer is fast to the second next on either side, slow to its neighbours in order of admission."""
    with emulator(peers + 1, rtt_ms=10) as net:
        for a, b in permutations(range(peers), 2):
            near = (b - a) % peers in (1, peers - 1)
            net.set((a, b), one_way=True, rate_mbit=SLOW if near else FAST)
        yield net


@contextmanager
def group(net: Emulator, peers: int = 5) -> Iterator[list[Commanded]]:
    """Admitted in order of their numbers."""
    words = net.command(peers, sys.executable, "-c", MASTER, net.addresses[peers])
    processes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True)]
    try:
        address = line_of(processes[0], 20).strip()
        all_peers = []
        for i in range(peers):
            peer = Commanded(address, peers, f"host {i}", prefix=net.command(i))
            processes.append(peer.process)
            all_peers.append(peer)
            time.sleep(0.7)  # ids are given in the order of joining
        for peer in all_peers:
            peer.joined()
        assert [peer.id for peer in all_peers] == list(range(1, peers + 1))
        yield all_peers
    finally:
        close(processes)


def reduce_seconds(peers: list[Commanded], repeats: int = 3) -> float:
    """The median of so many ring all-reduces; every value is right."""
    seconds = []
    for _ in range(repeats):
        calls = on_all(peers, "reduce", COUNT, "ring")
        assert all(call["right"] and len(call["contributors"]) == len(peers) for call in calls)
        seconds.append(max(c["ended"] for c in calls) - max(c["began"] for c in calls))
    return sorted(seconds)[repeats // 2]


def around(ring: list[int]) -> set[frozenset[int]]:
    return {frozenset((a, b)) for a, b in zip(ring, ring[1:] + ring[:1], strict=True)}


@pytest.mark.deadline(200)
def test_measured_order_is_as_much_faster_as_predicted() -> None:
    with network() as net, group(net) as peers:
        before = reduce_seconds(peers)
        reports: list[Any] = on_all(peers, "optimize", 200)
        after = reduce_seconds(peers)
        print("before", before, "after", after, reports[0])
        assert all(report == reports[0] for report in reports)
        report = reports[0]
        assert report["adopted"] and report["measured"] == report["links"] == 20
        assert around(report["order"]) == {frozenset(p) for p in [(1, 3), (3, 5), (5, 2), (2, 4), (4, 1)]}
        assert report["bandwidth_before"] * 8e-6 == pytest.approx(SLOW, rel=0.2)
        assert report["bandwidth"] * 8e-6 == pytest.approx(FAST, rel=0.25)
        assert before / after > 0.7 * report["speedup"]
        assert before / after == pytest.approx(report["speedup"], rel=0.3)
        again = on_all(peers, "optimize", 100)[0]
        assert not again["adopted"] and again["order"] == report["order"]
