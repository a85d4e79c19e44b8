"""`bench ddp`: a training step with elastic data parallelism, against torch's DDP on gloo; and kills in it.

All ways take turns in the same processes, on models of the same size; a step is zero_grad, forward, backward
and the optimizer's, with hardly any compute, so that it shows what the reduction costs. Goals are gloo's
medians.
"""

from __future__ import annotations

import random
import signal
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from .crew import Crew, Worker, each
from .group import GLOO, Group, running
from .peers import start_master
from .report import Figure
from .turns import take_turns
from .units import MIB, bytes_text, percentile

KILL_GOAL_S = 0.050
HANG_S = 60.0


def measure(group: Group, sizes: Sequence[int], repeats: int, kills: int) -> Iterator[Figure]:
    """Seconds of the slowest peer's step, median; then kills, with a model of 1 MiB. `sizes`: bytes of
    parameters. Raises UsageError where torch is missing."""
    group.check()
    step_peer = import_module(f"{__package__}.step_peer")
    ours = (step_peer.MODULE, step_peer.DDP, step_peer.ON_BACKEND)
    with running(group, step_peer.StepPeer) as run:
        run.each("join_backend", address=run.about["address"])
        for size in sizes:
            run.each("forget")
            run.each("prepare", size=size, ways=[GLOO, *ours])
            others = run.others_cpu()
            timed = take_turns(run.workers, [GLOO, *ours], repeats)
            share, theirs = others.share(), timed[GLOO]
            for way in ours:
                one = timed[way]
                details = {"peers": group.peers, "gloo_ms": theirs.seconds * 1e3}
                details |= {"overhead_ms": (one.seconds - theirs.seconds) * 1e3, "p99_ms": one.p99 * 1e3}
                details |= {"gloo_p99_ms": theirs.p99 * 1e3, "others_cpu": share}
                name = f"step, {bytes_text(size)} of parameters, {way}"
                yield Figure("ddp", name, one.seconds, "s", theirs.seconds, details, one.correct)
    if kills:
        yield _kills(step_peer.TrainingPeer, group, kills)


def _kills(kind: Any, group: Group, kills: int, size: int = MIB, seed: int = 1) -> Figure:
    """From the kill -9 of one of three peers to the slower survivor's next optimizer step."""
    chance, seconds, normal, right = random.Random(seed), [], [], True
    with Crew() as crew:
        master, about = start_master(crew)
        start = partial(crew.start, "a peer", partial(kind, master.pid, size, transport=group.transport))
        peers = [start() for _ in range(3)]
        each(peers, "ready")
        each(peers, "enter", address=about["address"], min_islands=3)
        for turn in range(kills):
            normal += [max(times) for times in zip(*each(peers, "steps", count=10), strict=True)]
            victim = peers.pop(chance.randrange(3))
            taken, digests = _kill_one(victim, peers, chance.uniform(0.005, 0.050))
            seconds.append(taken)
            right &= len(digests) == 1
            crew.end(victim)
            if turn + 1 < kills:
                peers.append(_replace(start(), peers, about["address"]))
    step = statistics.median(normal)
    details = {"kills": kills, "p99_ms": percentile(seconds, 99) * 1e3, "max_ms": max(seconds) * 1e3}
    details |= {"step_ms": step * 1e3}
    name = f"kill -9 to the next committed step, {bytes_text(size)}, P = 3"
    return Figure("ddp", name, statistics.median(seconds), "s", KILL_GOAL_S + step, details, right)


def _kill_one(victim: Worker, survivors: list[Worker], after: float) -> tuple[float, set[str]]:
    known = victim.call("id")
    victim.send("train")
    for worker in survivors:
        worker.send("train_until_without", peer=known)
    time.sleep(after)
    killed = time.monotonic()
    victim.signal(signal.SIGKILL)
    found = [worker.receive(HANG_S) for worker in survivors]
    return max(result["ended"] for result in found) - killed, {result["digest"] for result in found}


def _replace(newcomer: Worker, members: list[Worker], address: str) -> Worker:
    newcomer.call("ready")
    newcomer.send("enter", address=address)
    for worker in members:
        worker.send("train_until_with", count=len(members) + 1)
    newcomer.receive()
    newcomer.call("train_until_with", count=len(members) + 1)
    for worker in members:
        worker.receive()
    return newcomer
