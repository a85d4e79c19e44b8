"""`bench kill`: from the kill -9 of one of some peers to the next successful all_reduce of the others.

The survivors reduce in place without pause; the clock runs from just before the kill to the moment when the
slower survivor has the first result without the victim. A replacement joins before the next kill.
"""

from __future__ import annotations

import random
import signal
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from . import transports
from .crew import Crew, Worker, each
from .looping import LoopingPeer
from .peers import start_master
from .report import Figure
from .units import KIB, MIB, bytes_text, percentile

PEERS = 3
MEDIAN_GOAL_S, P99_GOAL_S = 0.030, 0.100
CHILDREN = 2  # of the victim, where it has forked
HANG_S = 30.0


@dataclass
class Trials:
    """What was seen over all kills of one setting."""

    seconds: list[float] = field(default_factory=list)
    operations: int = 0
    wrong: int = 0


def measure(
    kills: int, sizes: Sequence[int] = (4 * MIB, KIB), peers: int = PEERS, seed: int = 1, **settings: Any
) -> Iterator[Figure]:
    """Figures as they are measured: per size, without and with forked children of the victim. `settings`: of
    the peers, as `transport`."""
    transport = settings.get("transport", "auto")
    transports.check(transport)
    for size in sizes:
        for children in (0, CHILDREN):
            trials = _kill(kills, size, children, random.Random(seed), peers, settings)
            name = f"kill -9 to the next all_reduce, {bytes_text(size)}"
            name += f", {transport}" if transport != "auto" else ""
            name += ", victim has forked" if children else ""
            details: dict[str, Any] = {"peers": peers, "kills": kills, "operations": trials.operations}
            details["max_ms"] = max(trials.seconds) * 1e3
            median, p99 = statistics.median(trials.seconds), percentile(trials.seconds, 99)
            yield Figure("kill", f"{name}: median", median, "s", MEDIAN_GOAL_S, details)
            yield Figure("kill", f"{name}: p99", p99, "s", P99_GOAL_S)
            yield Figure("kill", f"{name}: wrong results", trials.wrong, "", 0, {}, trials.wrong == 0)


def _kill(
    kills: int, size: int, children: int, chance: random.Random, count: int, settings: dict[str, Any]
) -> Trials:
    trials = Trials()
    with Crew() as crew:
        master = start_master(crew)
        start = partial(_start, crew, master, size, settings)
        peers = {slot: start(slot) for slot in range(count)}
        each(list(peers.values()), "join", address=master[1]["address"], min_islands=count)
        for turn in range(kills):
            slot = chance.randrange(count)
            victim = peers.pop(slot)
            if children:
                victim.call("fork_children", count=children)
            _kill_one(list(peers.values()), victim, chance.uniform(0.005, 0.050), trials)
            crew.end(victim)
            if turn + 1 < kills:
                peers[slot] = start(slot)
                peers[slot].send("join", address=master[1]["address"])
                each([w for s, w in peers.items() if s != slot], "wait_for", islands=count)
                peers[slot].receive()
    return trials


def _start(
    crew: Crew, master: tuple[Worker, dict[str, Any]], size: int, settings: dict[str, Any], slot: int
) -> Worker:
    return crew.start(f"peer {slot}", partial(LoopingPeer, master[0].pid, slot, size, **settings))


def _kill_one(survivors: list[Worker], victim: Worker, after: float, trials: Trials) -> None:
    known = each([victim, *survivors], "slot_of")
    slots = {str(peer["id"]): peer["slot"] for peer in known}
    victim.send("run")
    for worker in survivors:
        worker.send("run_until", slots=slots, without=known[0]["id"])
    time.sleep(after)
    killed = time.monotonic()
    victim.signal(signal.SIGKILL)
    results = [worker.receive(HANG_S) for worker in survivors]
    trials.seconds.append(max(result["ended"] for result in results) - killed)
    trials.operations += max(result["operations"] for result in results)
    trials.wrong += sum(result["wrong"] for result in results)
