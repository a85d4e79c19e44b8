"""`bench torch`: an all_reduce through torch.distributed's backend "pccl", beside the core's own, and gloo's.

All three take turns on the same tensors in the same processes. The goals: what the backend adds to a DDP
bucket is 5 % of the core's time at most; a tensor of 4 bytes takes 0.25 ms at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .backend_peer import BACKEND, OURS, TorchPeer
from .group import GLOO, Group, Setting, running
from .plot import Bar
from .report import titles
from .turns import Timed, repeats_of, take_turns
from .units import KIB, bytes_text

WAYS = (OURS, BACKEND, GLOO)
SMALL_GOAL_S, SHARE_GOAL = 0.25e-3, 1.05
_SIDE = "us:10 p99:10 cpu:10 ok:3"


@dataclass(frozen=True)
class Options:
    sizes: Sequence[int]
    group: Group
    repeats: int | None = None


@dataclass(frozen=True)
class Row:
    """One size. `goal`: in seconds where `is_small`, else as a part of the core's time."""

    size: int
    timed: dict[str, Timed]
    setting: Setting
    others_cpu: float

    @property
    def right(self) -> bool:
        return all(timed.correct for timed in self.timed.values())

    @property
    def is_small(self) -> bool:
        return self.size <= 4 * KIB

    @property
    def share(self) -> float:
        """The backend's time as a part of the core's."""
        return self.timed[BACKEND].seconds / self.timed[OURS].seconds

    @property
    def reached(self) -> bool:
        return self.timed[BACKEND].seconds <= SMALL_GOAL_S if self.is_small else self.share <= SHARE_GOAL

    def record(self) -> dict[str, Any]:
        setting = self.setting
        record: dict[str, Any] = {"bench": "torch", "bytes": self.size, "peers": setting.peers}
        record |= {"others_cpu": round(self.others_cpu, 3), "share_of_core": self.share}
        record |= {"goal": SMALL_GOAL_S if self.is_small else SHARE_GOAL, "small": self.is_small}
        record |= {"reached": self.reached, "correct": self.right, "against": setting.against}
        for name, way in (("core", OURS), ("backend", BACKEND), ("gloo", GLOO)):
            timed = self.timed[way]
            record[name] = {"seconds": timed.seconds, "p99_seconds": timed.p99, "cpu": timed.cpu_seconds}
        return record

    def head(self) -> str:
        lines = [
            f"# all_reduce in place of float32 torch tensors, {self.setting.peers} peers on this host, by the"
            f" core (transport {self.setting.transport}), by torch.distributed's backend pccl, by"
            f" {self.setting.against}",
            "# microseconds of the slowest peer, median; cpu: of all peers; share: backend / core",
        ]
        title = titles(f"bytes:12 ops:4 {_SIDE} | {_SIDE} | {_SIDE} | share:5 goal:9 reached:7 other:5")
        return "\n".join([*lines, title])

    def line(self) -> str:
        goal = f"{SMALL_GOAL_S * 1e6:.0f} us" if self.is_small else f"{SHARE_GOAL:.2f}"
        sides = " | ".join(_side(self.timed[way]) for way in WAYS)
        reached = "yes" if self.reached else "NO"
        operations = self.timed[OURS].operations
        return (
            f"{self.size:>12} {operations:>4} {sides} | {self.share:>5.2f} {goal:>9} {reached:>7}"
            f" {self.others_cpu:>5.0%}"
        )

    def bar(self) -> Bar:
        values = {way: self.timed[way].seconds * 1e6 for way in WAYS}
        return Bar(f"{bytes_text(self.size)}, P = {self.setting.peers}", values, "us per operation")


def _side(timed: Timed) -> str:
    right = "yes" if timed.correct else "NO"
    return (
        f"{timed.seconds * 1e6:>10.1f} {timed.p99 * 1e6:>10.1f} {timed.cpu_seconds * 1e6:>10.1f} {right:>3}"
    )


def measure(options: Options) -> Iterator[Row]:
    """Rows as they are measured. Raises UsageError or WorkerFailed."""
    with running(options.group, TorchPeer) as run:
        run.each("join_backend", address=run.about["address"])
        for size in options.sizes:
            others = run.others_cpu()
            run.each("prepare", size=size, out=False)
            timed = take_turns(run.workers, WAYS, options.repeats or repeats_of(size))
            share = others.share()
            yield Row(size, timed, run.setting(), share)
