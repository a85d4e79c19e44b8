"""The emulated network: delay, rate, loss, order and cuts are what was asked for, and nothing is left of it.

Bounds are generous, and where there are times the least disturbed counts: a busy machine is no fault.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pccl_py.bench import encryption, wan_goals
from pccl_py.bench.wan_row import Options
from stress.net import Emulator, EmulatorDied, NoEmulator
from stress.net import build as building
from tests.conftest import Spawn

from .emulated import (
    TCP_DIGEST,
    TCP_SEND,
    TCP_SEND_RANDOM,
    TCP_SINK,
    UDP_COUNT,
    UDP_ECHO,
    UDP_PING,
    UDP_SEND,
    Inside,
    emulator,
)

ROOT = Path(__file__).resolve().parents[2]


def answer(process: subprocess.Popen[str]) -> Any:
    """What it prints last, once it is told that its input has ended."""
    output, _ = process.communicate(timeout=40)
    return json.loads(output.splitlines()[-1])


def ready(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def pings(inside: Inside, net: Emulator, a: int, b: int, count: int = 10, wait: float = 2) -> Sequence[Any]:
    """Seconds from a to b and back, None for no echo; an echo runs at b."""
    seconds: list[float | None] = answer(inside(net, a, UDP_PING, net.addresses[b], count, wait))
    return seconds


def sent(
    inside: Inside, net: Emulator, count: int, size: int = 100, rate: int = 4000, a: int = 0, b: int = 1
) -> list[int]:
    """Numbers of the datagrams that came from a to b, in that order."""
    counter = ready(inside(net, b, UDP_COUNT))
    inside(net, a, UDP_SEND, net.addresses[b], count, size, rate).wait(40)
    time.sleep(0.5)  # the last ones are on their way
    came: list[int] = answer(counter)
    return came


# ---- delay and order ---------------------------------------------------------------------------------------


def test_round_trips(inside: Inside) -> None:
    with emulator(3, rtt_ms=30) as net:
        net.set((0, 2), rtt_ms=60)
        net.set((1, 2), one_way=True, delay_ms=50)  # and 15 back
        for peer in (1, 2):
            ready(inside(net, peer, UDP_ECHO))
        for a, b, expected in ((0, 1, 0.030), (0, 2, 0.060), (1, 2, 0.065)):
            seconds = pings(inside, net, a, b)
            assert expected <= min(seconds) < expected + 0.010
        assert net.stats().links[0, 1].packets == 10


def test_jitter_keeps_the_order(inside: Inside) -> None:
    with emulator(2, rtt_ms=10, jitter_ms=20) as net:
        assert sent(inside, net, 400) == list(range(400))


def test_jitter_that_reorders(inside: Inside) -> None:
    with emulator(2, rtt_ms=10, jitter_ms=20, reorder=True) as net:
        came = sent(inside, net, 400)
    assert came != sorted(came)
    assert sorted(came) == list(range(400))


def test_jitter_is_even(inside: Inside) -> None:
    with emulator(2, rtt_ms=10, jitter_ms=40) as net:
        ready(inside(net, 1, UDP_ECHO))
        seconds = pings(inside, net, 0, 1, count=30)
    assert 0.010 <= min(seconds)
    assert 0.030 < statistics.median(seconds) < 0.090  # 0.050 expected, 0.003 its deviation
    assert max(seconds) - min(seconds) > 0.020


# ---- rate and queue ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["link", "up", "down"])
def test_rate(inside: Inside, of: str) -> None:
    """4 MiB at 20 Mbit/s."""
    with emulator(2, rtt_ms=4, queue_ms=200) as net:
        if of == "link":
            net.set((0, 1), rate_mbit=20)
        else:
            net.set(0 if of == "up" else 1, **{f"{of}_mbit": 20})
        sink = ready(inside(net, 1, TCP_SINK))
        inside(net, 0, TCP_SEND, net.addresses[1], 4 << 20)
        count, seconds = answer(sink)
    assert count == 4 << 20
    rate = count * 8 / seconds / 1e6
    assert 12 < rate < 20.5  # at most the payload's share, 19.3, but the first packets were in before


def test_access_line_is_shared(inside: Inside) -> None:
    """What 0 sends to 1 and to 2 at the same time leaves over one line."""
    with emulator(3, rtt_ms=4, queue_ms=200) as net:
        net.set(0, up_mbit=20)
        sinks = [ready(inside(net, peer, TCP_SINK)) for peer in (1, 2)]
        began = time.monotonic()
        for peer in (1, 2):
            inside(net, 0, TCP_SEND, net.addresses[peer], 2 << 20)
        counts = [answer(sink)[0] for sink in sinks]
        seconds = time.monotonic() - began
    assert counts == [2 << 20] * 2
    assert seconds > (4 << 20) * 8 / 20.5e6


def test_queue_drops_its_tail(inside: Inside) -> None:
    """400 packets of 1028 bytes at once, at 8 Mbit/s: about 1 ms each, and 50 ms of them wait."""
    with emulator(2, rate_mbit=8, queue_ms=50) as net:
        came = sent(inside, net, 400, size=1000, rate=1_000_000)
        link = net.stats().links[0, 1]
    assert came == sorted(came)
    assert 45 < len(came) < 200  # a slow sender gets more through
    assert link.dropped == 400 - len(came)


# ---- loss --------------------------------------------------------------------------------------------------


def test_loss(inside: Inside) -> None:
    """5 % of 4000: 200, and 14 its deviation. The other direction is whole."""
    with emulator(2) as net:
        net.set((0, 1), one_way=True, loss=0.05)
        came = sent(inside, net, 4000)
        stats = net.stats()
    assert 130 < 4000 - len(came) < 270
    assert stats.links[0, 1].lost == 4000 - len(came)
    assert stats.links[1, 0].lost == 0


@pytest.mark.parametrize("loss", [0.0, 0.02])
def test_packets_of_one_burst_have_each_their_fate(inside: Inside, loss: float) -> None:
    """The kernel hands over many at once, as to a card: on the way each counts, and is lost, alone."""
    with emulator(2, rtt_ms=4, rate_mbit=400, loss=loss) as net:
        sink = ready(inside(net, 1, TCP_DIGEST))
        digest = answer(inside(net, 0, TCP_SEND_RANDOM, net.addresses[1], 8 << 20))
        assert answer(sink) == digest
        link = net.stats().links[0, 1]
    assert link.bytes <= 1500 * link.packets
    assert link.packets >= (8 << 20) / 1460
    assert link.lost == 0 if loss == 0 else link.lost > link.packets * loss / 3


def test_loss_is_by_seed(inside: Inside) -> None:
    def survivors(seed: int) -> list[int]:
        with emulator(2, loss=0.2, seed=seed) as net:
            return sent(inside, net, 300)

    assert survivors(7) == survivors(7) != survivors(8)


# ---- cuts --------------------------------------------------------------------------------------------------


def test_cut_and_restore(inside: Inside) -> None:
    with emulator(3, rtt_ms=2) as net:
        for peer in range(3):
            ready(inside(net, peer, UDP_ECHO))

        def reach(a: int, b: int) -> bool:
            return pings(inside, net, a, b, count=2, wait=0.3) != [None, None]

        net.cut(0, 1)
        assert [reach(0, 1), reach(1, 0), reach(0, 2), reach(1, 2)] == [False, False, True, True]
        net.restore(0, 1)
        assert reach(0, 1)
        net.isolate(2)
        assert [reach(0, 1), reach(0, 2), reach(2, 1)] == [True, False, False]
        net.reconnect(2)
        assert reach(2, 1)
        net.partition([0], [1, 2])
        assert [reach(0, 1), reach(2, 0), reach(1, 2)] == [False, False, True]
        net.heal()
        assert [reach(0, 1), reach(2, 0)] == [True, True]


def test_cut_one_way(inside: Inside) -> None:
    def sent_either_way() -> tuple[int, int]:
        return len(sent(inside, net, 5)), len(sent(inside, net, 5, a=1, b=0))

    with emulator(2, rtt_ms=2) as net:
        net.cut(0, 1, one_way=True)
        assert sent_either_way() == (0, 5)
        net.restore(0, 1)
        net.cut(1, 0, one_way=True)
        assert sent_either_way() == (5, 0)
        stats = net.stats()
        assert (stats.links[0, 1].cut, stats.links[1, 0].cut) == (5, 5)


def test_a_cut_loses_what_is_on_its_way(inside: Inside) -> None:
    with emulator(2, rtt_ms=10_000) as net:
        inside(net, 0, UDP_SEND, net.addresses[1], 5, 100, 1000).wait(40)
        net.cut(0, 1)
        net.restore(0, 1)
        net.set(rtt_ms=2)
        time.sleep(5.5)  # they would have arrived
        stats = net.stats()
        assert (stats.links[0, 1].packets, stats.links[0, 1].cut, stats.on_their_way) == (0, 5, 0)


def test_tcp_survives_a_cut(inside: Inside) -> None:
    """Silence, not a reset."""
    with emulator(2, rtt_ms=10, rate_mbit=40) as net:
        sink = ready(inside(net, 1, TCP_SINK))
        inside(net, 0, TCP_SEND, net.addresses[1], 2 << 20)
        time.sleep(0.2)
        net.cut(0, 1)
        time.sleep(0.5)
        net.restore(0, 1)
        count, _ = answer(sink)
        assert count == 2 << 20


# ---- the end, and what goes wrong --------------------------------------------------------------------------


def gone(pid: int, within_s: float = 5) -> bool:
    until = time.monotonic() + within_s
    while Path(f"/proc/{pid}").exists() and "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def test_nothing_is_left() -> None:
    """Namespaces have no name, and no process outlives the block that could hold them."""
    with pytest.raises(RuntimeError, match="on purpose"), emulator(2) as net:
        assert os.stat(net.namespaces[0]).st_ino != os.stat("/proc/self/ns/net").st_ino
        raise RuntimeError("on purpose")
    assert gone(net.pid)
    assert not any(os.path.exists(path) for path in net.namespaces)
    net.close()
    with pytest.raises(EmulatorDied):
        net.heal()


@pytest.mark.parametrize("held_open", [False, True])
def test_it_ends_with_its_parent(spawn: Spawn, held_open: bool) -> None:
    """Also where a child that it never knew of holds its standard input open."""
    fork = "os.fork() or time.sleep(8)" if held_open else "0"
    source = "import os, time; from stress.net import Emulator; net = Emulator(2); print(net.pid); "
    emulator(2).close()  # or there is nothing to try
    parent = spawn("-c", f"{source} {fork}; time.sleep(30)")
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert gone(pid)


def test_wrong_arguments() -> None:
    with emulator(2) as net:
        for wrong in (
            lambda: net.set(0, loss=0.1),
            lambda: net.set((0, 1), up_mbit=1),
            lambda: net.set(loss=1.5),
            lambda: net.set(rtt_ms=-1),
            lambda: net.set(2, up_mbit=1),
            lambda: net.cut(0, 0),
            lambda: net.cut(0, 2),
            lambda: net.isolate(-1),
        ):
            with pytest.raises(ValueError):
                wrong()
        net.set((0, 1), rtt_ms=1, reorder=True)
    with pytest.raises(ValueError, match="1 peers"):
        Emulator(1)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++")
    with pytest.raises(NoEmulator, match=r"compiler.*/nowhere/g\+\+"):
        building.program()


def without_rights(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs the command as a root that may make no namespaces: without CAP_SYS_ADMIN, for good."""
    source = "import ctypes, os, sys; assert ctypes.CDLL(None).prctl(24, 21, 0, 0, 0) == 0; "
    command = [sys.executable, "-c", source + "os.execv(sys.argv[1], sys.argv[1:])", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=ROOT)


def test_no_rights() -> None:
    emulator(2).close()  # else there are none to give up
    source = "from stress.net import *\ntry: Emulator(2)\nexcept NoEmulator as error: print(error)"
    done = without_rights(sys.executable, "-c", source)
    assert done.stdout == "a network namespace (it takes root): Operation not permitted\n", done.stderr


# ---- its user ----------------------------------------------------------------------------------------------


def test_bench_wan() -> None:
    emulator(2).close()
    options = ("--peers", "3", "--rtt-ms", "10", "--rate-mbit", "200", "--sizes", "4,64K", "--repeats", "2")
    command = [sys.executable, "-m", "pccl_py", "bench", "wan", *options, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["bytes"] for row in rows] == [4, 65536]
    for row in rows:
        assert (row["bench"], row["peers"], row["operations"], row["correct"]) == ("wan", 3, 2, True)
        assert row["bound"] == min(row["bounds"].values())
        assert row["bound_ratio"] == pytest.approx(row["seconds"] / row["bound"])
        assert row["bound_ratio_with_commit"] >= 1
        assert row["bound"] <= row["exchange_seconds"] < row["seconds"]
        assert row["bound_ratio_exchange"] == pytest.approx(row["exchange_seconds"] / row["bound"])
        assert row["goal"] is None and row["reached"] is None


def test_bench_wan_goals(monkeypatch: pytest.MonkeyPatch) -> None:
    emulator(2).close()
    small = Options(peers=2, sizes=[4096], rtt_ms=10, rate_mbit=100)
    monkeypatch.setattr(wan_goals, "GOALS", (replace(small, goal=1000.0), replace(small, goal=0.5)))
    rows = list(wan_goals.measure(repeats=2))
    assert [(row.right, row.reached) for row in rows] == [(True, True), (True, False)]
    for row in rows:
        assert row.record()["goal"] == row.options.goal
        assert row.line().split()[0] == "4096"


def test_bench_encryption(emulated: None) -> None:
    """In both runs values are right; no time is compared."""
    (figure,) = encryption.measure(1 << 20, 2)
    assert figure.right and figure.details["operations"] == 2
    assert figure.value is not None and figure.details["encrypted_s"] > 0


def test_bench_wan_without_the_tree(tmp_path: Path) -> None:
    """As in a wheel, which carries the package alone."""
    shutil.copytree(ROOT / "pccl_py", tmp_path / "pccl_py")
    command = [sys.executable, "-m", "pccl_py", "bench", "wan"]
    environ = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=tmp_path, env=environ)
    assert (done.returncode, done.stdout) == (77, ""), done.stderr
    assert "checkout" in done.stderr


def test_bench_wan_without_rights() -> None:
    emulator(2).close()
    done = without_rights(sys.executable, "-m", "pccl_py", "bench", "wan")
    assert (done.returncode, done.stdout) == (77, ""), done.stderr
    assert "missing: a network namespace" in done.stderr
