"""DiLoCo on real processes: peers are killed in a window and in a reduction, one joins, one is stopped.

Every window's digest must be equal on all peers, and its values those of one process with the same members.
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
import time
from typing import Any

import numpy as np
import pytest

from pccl_py import Master
from tests.conftest import Spawn

from .diloco_peer import PULL, H, start, target

MODULE = "tests.integration.diloco_peer"


class Run:
    """Peers by name, and everything that they said."""

    def __init__(self, spawn: Spawn, address: str, module: str = MODULE) -> None:
        self._spawn = spawn
        self._module = module
        self._address = address
        self._events: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.said: dict[str, list[dict[str, Any]]] = {}
        self._readers: list[threading.Thread] = []

    def start(self, name: str, *options: str) -> None:
        command = ("-m", self._module, self._address, name, *options)
        process = self._spawn(*command, stdin=subprocess.PIPE)
        self.processes[name], self.said[name] = process, []
        reader = threading.Thread(target=self._read, args=(name, process), daemon=True)
        reader.start()
        self._readers.append(reader)

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line) if line.startswith("{") else {"event": "text", "text": line}
            self._events.put((name, event))
            self.said[name].append(event)

    def until(self, event: str, name: str | None = None, **values: Any) -> dict[str, Any]:
        """The next event that has these values."""
        end = time.monotonic() + 45
        while True:
            try:
                who, found = self._events.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {event!r} {values} of {name}; they said {self.said}") from None
            if found["event"] == event and name in (None, who):
                if all(found.get(key) == value for key, value in values.items()):
                    return found

    def go(self, name: str) -> None:
        stdin = self.processes[name].stdin
        assert stdin is not None
        stdin.write("\n")
        stdin.flush()

    def finish(self, killed: set[str], by: int = signal.SIGKILL) -> None:
        for name, process in self.processes.items():
            status = process.wait(45)
            wanted = -by if name in killed else 0
            assert status == wanted, f"{name} ended with {status}: {self.said[name]}"
        for reader in self._readers:
            reader.join(5)

    def of(self, name: str, event: str) -> list[dict[str, Any]]:
        return [found for found in self.said[name] if found["event"] == event]

    def digests(self) -> dict[int, set[str]]:
        """By window, of every peer that ended it, and of those that started from it."""
        found: dict[int, set[str]] = {}
        for name in self.said:
            for event in self.of(name, "window"):
                found.setdefault(event["number"], set()).add(event["digest"])
            for event in self.of(name, "begins"):
                found.setdefault(event["window"], set()).add(event["digest"])
        return found

    def contributors(self) -> dict[int, set[str]]:
        """By window, as names; the same on every peer."""
        names = {e["id"]: name for name in self.said for e in self.of(name, "member")}
        found: dict[int, set[str]] = {}
        for name in self.said:
            for event in self.of(name, "window"):
                who = {names[peer] for peer in event["contributors"]}
                assert found.setdefault(event["number"], who) == who, (name, event)
        return found


def reference(members: dict[int, set[str]], size: int, first: int = 50) -> np.ndarray[Any, Any]:
    """DiLoCo in float64 with these members in each window: so many of its elements."""
    theta, momentum = start(size)[:first], np.zeros(first)
    for window in sorted(members):
        deltas = []
        for name in sorted(members[window]):
            local = theta.copy()
            for _ in range(H):
                local -= PULL * (local - target(name, first))
            deltas.append(theta - local)
        delta = np.mean(deltas, axis=0)
        momentum = 0.9 * momentum + delta
        theta = theta - 0.7 * (delta + 0.9 * momentum)
    return theta


def test_peers_die_and_join(spawn: Spawn, master: Master) -> None:
    size, windows = 1_000_000, 24
    common = ("--size", str(size), "--windows", str(windows))
    run = Run(spawn, master.address)
    for name, options in {
        "A": (),
        "B": ("--die-in-reduction", "5"),
        "C": ("--die-in-window", "3"),
        "D": ("--die-in-reduction", "7", "--delay", "0.002"),
    }.items():
        run.start(name, *common, "--founders", "4", *options)
    run.start("J", *common, "--wait")
    run.until("ready", "J")
    run.until("window", "A", number=9)  # alone by now
    run.go("J")
    run.finish(killed={"B", "C", "D"})

    assert [e["number"] for e in run.of("A", "window")] == list(range(1, windows + 1)), "a window was lost"
    digests = run.digests()
    assert all(len(found) == 1 for found in digests.values()), digests
    assert len(set.union(*digests.values())) == windows + 1
    members = run.contributors()
    assert members[1] == members[3] == {"A", "B", "C", "D"}
    assert members[4] == members[5] == {"A", "B", "D"}, "C died in its fourth window"
    assert members[6] in ({"A", "B", "D"}, {"A", "D"}) and members[7] == {"A", "D"}
    assert members[8] in ({"A", "D"}, {"A"}) and members[9] == {"A"}
    joined = run.of("J", "begins")[0]["window"]
    assert 9 < joined < windows - 1
    assert all(members[n] == ({"A"} if n <= joined else {"A", "J"}) for n in range(9, windows + 1))
    for name in ("A", "J"):
        end = run.of(name, "end")[0]
        np.testing.assert_allclose(end["theta"], reference(members, size), rtol=1e-4, atol=1e-5)
        assert end["inner"] == windows * H


def test_interrupted_peer_costs_the_others_no_window(spawn: Spawn, master: Master) -> None:
    """Ctrl-C while it waits in a reduction cancels that on all peers; they repeat it."""
    run = Run(spawn, master.address)
    for name, pace in (("A", "0.05"), ("B", "0.05"), ("C", "0.001")):
        run.start(name, "--windows", "8", "--founders", "3", "--pace", pace)
    run.until("window", "C", number=3)
    time.sleep(0.1)  # it has done its steps long ago, and waits for the others
    run.processes["C"].send_signal(signal.SIGINT)
    run.finish(killed={"C"}, by=signal.SIGINT)

    for name in "AB":
        assert [e["number"] for e in run.of(name, "window")] == list(range(1, 9))
        assert any("reducing again" in e["text"] for e in run.of(name, "text"))
    members = run.contributors()
    assert members[3] == {"A", "B", "C"} and members[5] == members[8] == {"A", "B"}
    assert all(len(found) == 1 for found in run.digests().values())
    end = run.of("A", "end")[0]
    np.testing.assert_allclose(end["theta"], reference(members, 1000)[:50], rtol=1e-4, atol=1e-5)


@pytest.mark.stops_peers
def test_stopped_peer_is_evicted_and_comes_back_by_itself(spawn: Spawn, master: Master) -> None:
    windows = 45
    run = Run(spawn, master.address)
    for name in "ABC":
        run.start(name, "--windows", str(windows), "--founders", "3")
    run.until("window", "C", number=4)
    run.processes["C"].send_signal(signal.SIGSTOP)
    run.until("window", "A", number=7)  # without C, after the heartbeat limit
    run.processes["C"].send_signal(signal.SIGCONT)
    run.finish(killed=set())

    assert [e["number"] for e in run.of("A", "window")] == list(range(1, windows + 1)), "a window was lost"
    digests = run.digests()
    assert all(len(found) == 1 for found in digests.values()), digests
    members = run.contributors()
    assert run.of("C", "end")[0]["stats"] == {"rejoins": 1}
    back = run.of("C", "begins")[1]["window"]
    assert members[7] == {"A", "B"} and members[back] == {"A", "B"} and members[back + 1] == {"A", "B", "C"}
    for name in "ABC":
        end = run.of(name, "end")[0]
        np.testing.assert_allclose(end["theta"], reference(members, 1000)[:50], rtol=1e-4, atol=1e-5)
