"""`bench recorder`: what it costs that a peer records its events: operations with and without, in turns.

The lower quartile of their times: what else the machine does only ever adds to them. Beside the cost stands
how sure it is: a spread above it means that this machine, now, cannot tell such a cost from none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .all_reduce_peer import OURS, AllReducePeer
from .group import Group, Setting, running
from .plot import Bar
from .report import titles
from .timed_peer import Operation
from .turns import Timed, take_turns
from .units import KIB, bytes_text, percentile

UNRECORDED = "without a record"
# So many that a quiet machine tells less than 1 % from nothing.
REPEATS_SMALL, REPEATS = 10_000, 2000


@dataclass(frozen=True)
class Options:
    sizes: Sequence[int]
    group: Group = field(default_factory=Group)
    repeats: int | None = None


class RecorderPeer(AllReducePeer):
    """Records or not, by the way that is measured."""

    def _operation(self, way: str) -> Operation:
        self.comm._peer.pause_recorder(way == UNRECORDED)
        return super()._operation(OURS)


@dataclass(frozen=True)
class Row:
    size: int
    recorded: Timed
    unrecorded: Timed
    setting: Setting
    others_cpu: float

    @property
    def right(self) -> bool:
        return self.recorded.correct and self.unrecorded.correct

    @property
    def cost(self) -> float:
        return self.recorded.p25 / self.unrecorded.p25 - 1

    @property
    def spread(self) -> float:
        """Half the width in which the median of such costs lies, of all rounds, with 95 % confidence."""
        pairs = zip(self.recorded.rounds_p25, self.unrecorded.rounds_p25, strict=True)
        costs = [recorded / unrecorded - 1 for recorded, unrecorded in pairs]
        return 1.57 * (percentile(costs, 75) - percentile(costs, 25)) / math.sqrt(len(costs))

    def record(self) -> dict[str, Any]:
        setting = self.setting
        record: dict[str, Any] = {"bench": "recorder", "bytes": self.size, "peers": setting.peers}
        record |= {"others_cpu": round(self.others_cpu, 3)}
        way = (setting.transport, setting.congestion_control)
        record |= self.recorded.measures(self.size, setting.peers, *way)
        record |= {"p25_seconds": self.recorded.p25, "unrecorded_p25_seconds": self.unrecorded.p25}
        record |= {"cost": self.cost, "cost_spread": self.spread}
        record |= {"cpu_cost": self.recorded.cpu_seconds / self.unrecorded.cpu_seconds - 1}
        return record

    def head(self) -> str:
        setting = self.setting
        lines = [
            f"# recorder, all_reduce, sum of float32 in place, {setting.peers} peers on this host,"
            f" transport {setting.transport}",
            "# microseconds of the slowest peer, lower quartile, with and without a record of events,"
            " in turns; cost: more with it, spread: of its rounds",
        ]
        title = titles(
            "bytes:10 ops:5 with:10 without:10 cost:7 spread:6 cpu_with:9 cpu_without:11 ok:3 other:5"
        )
        return "\n".join([*lines, title])

    def line(self) -> str:
        ours, other = self.recorded, self.unrecorded
        right = "yes" if self.right else "NO"
        cpu = f"{ours.cpu_seconds * 1e6:>9.1f} {other.cpu_seconds * 1e6:>11.1f}"
        return (
            f"{self.size:>10} {ours.operations:>5} {ours.p25 * 1e6:>10.1f} {other.p25 * 1e6:>10.1f}"
            f" {self.cost:>7.2%} {self.spread:>6.2%} {cpu} {right:>3} {self.others_cpu:>5.0%}"
        )

    def bar(self) -> Bar:
        values = {"recorded": self.recorded.p25 * 1e6, "not recorded": self.unrecorded.p25 * 1e6}
        return Bar(f"{bytes_text(self.size)}, P = {self.setting.peers}", values, "us per operation")


def measure(options: Options) -> Iterator[Row]:
    """Rows as they are measured, in the order of sizes. Raises UsageError or WorkerFailed."""
    with running(options.group, RecorderPeer) as run:
        for size in options.sizes:
            others = run.others_cpu()
            run.each("prepare", size=size, out=False)
            repeats = options.repeats or (REPEATS_SMALL if size <= 64 * KIB else REPEATS)
            timed = take_turns(run.workers, [OURS, UNRECORDED], repeats)
            yield Row(size, timed[OURS], timed[UNRECORDED], run.setting(), others.share())
