"""What snapshots that are coded cost a training: the same steps with one every 10 of them, and without, in
turns, on two hosts that train beside each other."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from importlib import import_module

from .crew import Crew, each
from .peers import start_master
from .report import Figure
from .snapshot_hosts import hosts

HOSTS = 2
EVERY, STEPS = 10, 30  # of a turn
LOST_GOAL = 0.03
WITHIN_S = 180.0


def measure(repeats: int, transport: str) -> Iterator[Figure]:
    """The part of the time that is lost, median of `repeats` pairs of turns on the slower host."""
    import_module("torch._dynamo")  # by the first step() of any optimizer: once, before processes are forked
    with Crew() as crew, hosts(crew, transport) as place:
        master, about = start_master(crew)
        trainers = [place.start(i, master.pid) for i in range(HOSTS)]
        size = sum(each(trainers, "make_training"))
        each(trainers, "join", address=about["address"], parity=1, founders=HOSTS, lazy=True)
        each(trainers, "prepare", within=WITHIN_S)
        each(trainers, "train", steps=STEPS, every=EVERY, within=WITHIN_S)  # memory that is new
        plain, taking, right = [], [], True
        for _ in range(repeats):
            found = each(trainers, "train", steps=STEPS, every=0, within=WITHIN_S)
            plain.append(max(one["seconds"] for one in found))
            found = each(trainers, "train", steps=STEPS, every=EVERY, within=WITHIN_S)
            taking.append(max(one["seconds"] for one in found))
            right &= all(one["right"] for one in found)
    lost = statistics.median(with_it / without for with_it, without in zip(taking, plain, strict=True)) - 1
    details = {"step_ms": statistics.median(plain) / STEPS * 1e3, "bytes": size // HOSTS}
    details |= {"plain_s": plain, "taking_s": taking}
    name = f"training time lost, a snapshot every {EVERY} steps, parity 1"
    yield Figure("snapshot", name, max(lost, 0.0), "", LOST_GOAL, details, right)
