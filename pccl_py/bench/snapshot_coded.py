"""How soon all hosts' snapshots are safe from losses, against full copies with gloo and torch.save.

Four trainers take a snapshot at the same moment. From when the last keeper has its own until the last trainer
hears that all are coded, with each keeper as if on a host of its own. Also what that sends, and keeps.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from .crew import Crew, each
from .peers import start_master
from .report import Figure
from .snapshot_hosts import hosts
from .units import MIB, bytes_text

PEERS = 4
COPIES = 2  # of each state: what outlives one loss, and the least that replication can do
GOALS = {1: 1 / 4, 2: 1 / 2}  # of the time of full copies, by losses
BYTES_GOAL, MEMORY_GOAL = 1.05, 1.02
WITHIN_S = 180.0
CONGESTION_CONTROL = "reno"  # the other library takes the namespace's, and is quickest on this one


@dataclass(frozen=True, slots=True)
class Copied:
    """Medians, in seconds."""

    all: float
    gather: float
    right: bool


def measure(size: int, repeats: int, transport: str) -> Iterator[Figure]:
    """`size`: of the state of each trainer."""
    import_module("torch.distributed")  # once, before processes are forked
    copied = _copied(size, repeats)
    for parity in GOALS:
        yield from _coded(size, repeats, parity, transport, copied)


def _copied(size: int, repeats: int) -> Copied:
    replica = import_module(f"{__package__}.snapshot_replica")
    every, gather = [], []
    with Crew() as crew, tempfile.TemporaryDirectory(dir="/dev/shm", prefix="pccl-") as folder:
        master, _ = start_master(crew, CONGESTION_CONTROL)
        ranks = [
            crew.start(f"rank {i}", partial(replica.Replica, master.pid, i, PEERS, COPIES, folder))
            for i in range(PEERS)
        ]
        each(ranks, "make", size=size, within=WITHIN_S)
        for turn in range(repeats + 1):
            found = each(ranks, "replicate", within=WITHIN_S)
            if turn:  # the first touches memory that is new to it
                begun = max(one["begun"] for one in found)
                every.append(max(one["saved"] for one in found) - begun)
                gather.append(max(one["gathered"] for one in found) - begun)
        right = all(each(ranks, "check", within=WITHIN_S))
    return Copied(statistics.median(every), statistics.median(gather), right)


def _coded(size: int, repeats: int, parity: int, transport: str, copied: Copied) -> Iterator[Figure]:
    coded, taken, sent, right = [], [], [], copied.right
    with Crew() as crew, hosts(crew, transport) as place:
        master, about = start_master(crew, CONGESTION_CONTROL)
        trainers = [place.start(i, master.pid) for i in range(PEERS)]
        each(trainers, "make", size=size, within=WITHIN_S)
        each(trainers, "join", address=about["address"], parity=parity, founders=PEERS)
        each(trainers, "attach")
        bare = each(trainers, "keeper_bytes")
        each(trainers, "prepare", within=WITHIN_S)
        for step in range(1, repeats + 3):  # parities of the first two are memory that is new
            each(trainers, "change")
            before = master.call("loopback_bytes")
            found = each(trainers, "take", step=step, within=WITHIN_S)
            after = master.call("loopback_bytes")
            right &= all(one["right"] and one["losses"] == parity for one in found)
            if step > 2:
                complete, end = (max(one[key] for one in found) for key in ("complete", "coded"))
                coded.append(end - complete)
                taken.append(end - min(one["begun"] for one in found))
                if before is not None and transport == "tcp":
                    sent.append((after - before) / parity / sum(one["bytes"] for one in found))
        kept = sum(each(trainers, "keeper_bytes")) - sum(bare)
    group = f"{PEERS} x {bytes_text(size)}"
    losses = "1 loss" if parity == 1 else f"{parity} losses"
    seconds = statistics.median(coded)
    details = {"from_take_s": statistics.median(taken), "copies_s": copied.all, "gather_s": copied.gather}
    details |= {"copies_ratio": copied.all / seconds}
    name = f"coded against {losses}, {group}, {transport}"
    goal = copied.all * GOALS[parity]
    yield Figure("snapshot", name, seconds, "s", goal, details | {"all_s": coded}, right)
    if sent:
        ratio = statistics.median(sent)
        name = f"network bytes, of {parity} x what is coded"
        yield Figure(
            "snapshot", name, ratio, "x", BYTES_GOAL, {"least": 2 - BYTES_GOAL}, ratio > 2 - BYTES_GOAL
        )
    share = 1 + parity / (PEERS - parity)
    wanted = 2 * PEERS * size * share
    name = f"memory of keepers, of 2 S (1 + m/(n-m)), m = {parity}"
    yield Figure("snapshot", name, kept / wanted, "x", MEMORY_GOAL, {"MiB": kept / MIB}, right)
