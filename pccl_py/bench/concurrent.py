"""`bench concurrent`: several operations in flight, against one of the same number of bytes.

Both reduce the same memory in place: the several ones a part of it each, posted at once with a tag each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError
from .all_reduce_peer import OURS, AllReducePeer
from .group import Group, Setting, running
from .plot import Bar
from .report import titles
from .timed_peer import Operation
from .turns import Timed, repeats_of, take_turns
from .units import bytes_text

AT_ONCE = "at once"


@dataclass(frozen=True)
class Options:
    """`sizes`: of each of the `count` operations."""

    sizes: Sequence[int]
    group: Group = field(default_factory=Group)
    count: int = 8
    repeats: int | None = None


class ConcurrentPeer(AllReducePeer):
    def prepare_parts(self, size: int, count: int) -> None:
        self.prepare(size=size * count, out=False)
        each = self._array.size // count
        self._parts = [self._array[i * each : (i + 1) * each] for i in range(count)]

    def _operation(self, way: str) -> Operation:
        return self._at_once if way == AT_ONCE else super()._operation(way)

    def _at_once(self) -> None:
        works = [self.comm.all_reduce(part, tag=i, async_op=True) for i, part in enumerate(self._parts)]
        for work in works:
            work.wait()


@dataclass(frozen=True)
class Row:
    size: int
    count: int
    at_once: Timed
    one: Timed
    setting: Setting
    others_cpu: float

    @property
    def right(self) -> bool:
        return self.at_once.correct and self.one.correct

    @property
    def ratio(self) -> float:
        return self.one.seconds / self.at_once.seconds

    def record(self) -> dict[str, Any]:
        setting, whole = self.setting, self.size * self.count
        common = (whole, setting.peers, setting.transport, setting.congestion_control)
        record = {"bench": "concurrent", "bytes": whole, "bytes_each": self.size, "count": self.count}
        record |= {"place": "in place", "dtype": "float32", "peers": setting.peers}
        record |= {"others_cpu": round(self.others_cpu, 3)} | self.at_once.measures(*common)
        return record | {"one": self.one.measures(*common), "ratio": self.ratio}

    def head(self) -> str:
        setting = self.setting
        lines = [
            f"# concurrent, all_reduce, sum of float32 in place, {setting.peers} peers on this host",
            f"# transport {setting.transport}, congestion control {setting.congestion_control}",
            "# seconds: until all are done, median of the slowest peer; cpu s: of all peers;"
            " x: seconds of one operation / of those at once",
            titles(
                "bytes_each:10 count:5 turns:5 seconds:10 cpu_s:9 ok:3 other:5 | one:10 cpu_s:9 ok:3 | x:5"
            ),
        ]
        return "\n".join(lines)

    def line(self) -> str:
        text = f"{self.size:>10} {self.count:>5} {self.one.operations:>5} {_cells(self.at_once)}"
        return f"{text} {self.others_cpu:>5.0%} | {_cells(self.one)} | {self.ratio:>5.2f}"

    def bar(self) -> Bar:
        each = bytes_text(self.size)
        values = {"at once": self.at_once.seconds * 1e3, "as one": self.one.seconds * 1e3}
        return Bar(f"{self.count} x {each}, P = {self.setting.peers}", values, "ms")


def _cells(timed: Timed) -> str:
    return f"{timed.seconds:>10.6f} {timed.cpu_seconds:>9.6f} {'yes' if timed.correct else 'NO':>3}"


def measure(options: Options) -> Iterator[Row]:
    """Rows as they are measured, in the order of sizes. Raises UsageError or WorkerFailed."""
    if options.group.against is not None:
        raise UsageError("bench concurrent compares with one operation of this library")
    with running(options.group, ConcurrentPeer) as run:
        for size in options.sizes:
            others = run.others_cpu()
            run.each("prepare_parts", size=size, count=options.count)
            repeats = options.repeats or repeats_of(size * options.count)
            timed = take_turns(run.workers, [OURS, AT_ONCE], repeats)
            share, setting = others.share(), run.setting()
            yield Row(size, options.count, timed[AT_ONCE], timed[OURS], setting, share)
