"""`bench pause`: SIGSTOP of one of three peers: until the others go on, and what their waiting costs."""

from __future__ import annotations

import random
import signal
import statistics
import time
from collections.abc import Iterator
from functools import partial

from ..config import Config
from .crew import Crew, Worker, each
from .looping import LoopingPeer
from .peers import start_master
from .report import Figure
from .units import MIB

PEERS = 3
SIZE = 4 * MIB
CPU_GOAL = 0.05  # of a core


def measure(stops: int, seed: int = 1) -> Iterator[Figure]:
    """Median over so many runs; the heartbeat limit is that of the configuration."""
    chance = random.Random(seed)
    config = Config.load()
    limit = config.heartbeat_ms * config.heartbeats_missed_max / 1e3
    trials = [_stop(chance) for _ in range(stops)]
    seconds = statistics.median(trial[0] for trial in trials)
    details = {"stops": stops, "heartbeat_limit_s": limit, "max_s": max(trial[0] for trial in trials)}
    # A heartbeat may have come just before the stop, and its absence is noticed with the next one.
    goal = limit + 2 * config.heartbeat_ms / 1e3
    yield Figure("pause", "SIGSTOP of 1 of 3 to the others' next all_reduce", seconds, "s", goal, details)
    cpu = statistics.median(trial[1] for trial in trials)
    yield Figure("pause", "CPU of a survivor while it waits, part of a core", cpu, "", CPU_GOAL)
    told = sum(trial[2] for trial in trials)
    yield Figure("pause", "stopped peers that were not told on waking", stops - told, "", 0)


def _stop(chance: random.Random) -> tuple[float, float, bool]:
    """Seconds until the next result, the larger share of a core that a survivor used, and whether the stopped
    peer raised once it went on."""
    with Crew() as crew:
        master = start_master(crew)
        peers = [crew.start(f"peer {i}", partial(LoopingPeer, master[0].pid, i, SIZE)) for i in range(PEERS)]
        each(peers, "join", address=master[1]["address"], min_islands=PEERS)
        victim, *survivors = chance.sample(peers, PEERS)
        known = each([victim, *survivors], "slot_of")
        slots = {str(peer["id"]): peer["slot"] for peer in known}
        victim.send("run_until_error")
        for worker in survivors:
            worker.send("run_until", slots=slots, without=known[0]["id"])
        time.sleep(0.1)
        stopped = time.monotonic()
        victim.signal(signal.SIGSTOP)
        results = [worker.receive() for worker in survivors]
        victim.signal(signal.SIGCONT)
        seconds = max(result["ended"] for result in results) - stopped
        share = max(result["last_cpu"] / result["last_seconds"] for result in results)
        return seconds, share, _is_told(victim)


def _is_told(victim: Worker) -> bool:
    return victim.receive(10) in ("Evicted", "OutcomeUnknown")
