"""`bench snapshot`: what snapshots cost, when they are safe, and when a successor has the state again.

alone       one host: a trainer takes snapshots at once, then lazily, and is killed by SIGKILL
coded       four hosts: until losses do no harm, against full copies; what that sends and keeps
training    what coded snapshots take from a training
lost        six hosts, one of which is lost with its keeper
link        the same over emulated links of 1 Gbit/s
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ..snapshot import memory
from . import wan
from .report import Figure
from .units import GIB

STALL_GOAL_S = 0.002
SECONDS = 300


PARTS = ("alone", "coded", "training", "lost", "link")
# Memory that each takes at most, in states of `size`, and beside them.
NEEDS = {"alone": 5, "coded": 20, "training": 0, "lost": 34, "link": 16}
BESIDE = 1 << 30


def measure(size: int, repeats: int, parts: Sequence[str], transport: str) -> Iterator[Figure]:
    """`size`: of a trainer's state; where a host is lost, of twice as much. `transport`: of keepers."""
    for part in parts:
        needed, there = NEEDS[part] * size + BESIDE, memory.available()
        if needed > there:
            why = f"takes {needed / GIB:.1f} GiB of memory, {there / GIB:.1f} are there: pass --size"
            yield Figure("snapshot", part, None, "s", None, {"not measured": why})
        elif part == "alone":
            yield from _alone(size, repeats)
        else:
            import_module("torch")  # once, before processes are forked
            yield from _coded(part, size, repeats, transport)


def _coded(part: str, size: int, repeats: int, transport: str) -> Iterator[Figure]:
    module = import_module(f"{__package__}.snapshot_{part}")
    if part == "training":
        yield from module.measure(repeats, transport)
    elif part == "link":
        try:
            yield from module.measure(size, repeats)
        except wan.CannotMeasure as error:
            yield Figure("snapshot", part, None, "s", None, {"not measured": str(error)})
    else:
        yield from module.measure(2 * size if part == "lost" else size, repeats, transport)


def _alone(total: int, repeats: int) -> list[Figure]:
    """A trainer takes snapshots at once, then lazily, and is killed by SIGKILL; its successor, which is up by
    then, finds the last one, maps and verifies it, and restores its tensors."""
    run = f"bench-{os.getpid()}"
    with _peer("trainer", run, total, repeats) as trainer, _peer("successor", run, total) as successor:
        took = _line(trainer)
        _line(successor)
        killed = time.monotonic()
        trainer.kill()
        assert successor.stdin is not None
        successor.stdin.write("\n")
        successor.stdin.flush()
        found = _line(successor)
    now, lazy, size = took["now"], took["lazy"], took["lazy"]["bytes"]
    right = found["digest"] == lazy["digest"] and found["step"] == took["step"]
    per_gib = GIB / size
    copied = {"ms_per_GiB": round(now["blocked_s"] * 1e3 * per_gib, 1)}
    mapped = found["verified"] - killed

    def figure(name: str, value: float, goal: float | None = None, **details: Any) -> Figure:
        return Figure("snapshot", name, value, "s", goal, {"bytes": size} | details, right)

    return [
        figure("take_lazy", lazy["blocked_s"], STALL_GOAL_S, worst_ms=round(lazy["blocked_max_s"] * 1e3, 3)),
        figure("fence_lazy", lazy["fenced_s"]),
        figure("complete_lazy", lazy["complete_s"]),
        figure("take_at_once", now["blocked_s"], 0.1 / per_gib, **copied),
        figure("prepare", now["prepare_s"]),
        figure("kill_to_verified", mapped, 0.05 + 0.11 / per_gib),
        figure("restore", found["restore_s"], None, ms_per_GiB=round(found["restore_s"] * 1e3 * per_gib, 1)),
    ]


@contextmanager
def _peer(*words: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "pccl_py.bench.snapshot_peer", *map(str, words)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    text = process.stdout.readline()
    if not text:
        raise RuntimeError(f"a process of the bench ended with status {process.wait(SECONDS)}")
    found: dict[str, Any] = json.loads(text)
    return found
