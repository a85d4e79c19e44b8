"""`bench latency`: small operations, the exchange alone and with the commit, alone or against gloo.

The exchange alone ends when the slowest peer's library holds the whole result; the commit follows, a round
trip to the master, and only then does the call return. The other library's time is that of its call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError
from .all_reduce_peer import OURS, AllReducePeer, check_dtype
from .group import GLOO, Group, Setting, running
from .plot import Bar
from .report import titles
from .tensors import stored_type
from .turns import Timed, take_turns
from .units import bytes_text

REPEATS = 2000


@dataclass(frozen=True)
class Options:
    sizes: Sequence[int]
    group: Group = field(default_factory=Group)
    dtype: str = "float32"
    repeats: int = REPEATS


@dataclass(frozen=True)
class Row:
    size: int
    dtype: str
    ours: Timed
    against: Timed | None
    setting: Setting
    others_cpu: float

    @property
    def right(self) -> bool:
        return self.ours.correct and (self.against is None or self.against.correct)

    @property
    def exchange(self) -> float:
        return self.ours.to_result or 0.0

    def record(self) -> dict[str, Any]:
        setting = self.setting
        record = {"bench": "latency", "bytes": self.size, "place": "in place", "dtype": self.dtype}
        record |= {"peers": setting.peers, "namespace": setting.namespace}
        record |= {"others_cpu": round(self.others_cpu, 3)}
        record |= self.ours.measures(self.size, setting.peers, setting.transport, setting.congestion_control)
        record |= {"exchange_seconds": self.exchange, "p99_seconds": self.ours.p99}
        if self.against is not None:
            theirs = self.against.measures(self.size, setting.peers, "tcp", setting.default)
            record["against"] = {"name": setting.against, "p99_seconds": self.against.p99} | theirs
            record["ratio"] = self.against.seconds / self.ours.seconds
            record["exchange_ratio"] = self.against.seconds / max(self.exchange, 1e-9)
        return record

    def head(self) -> str:
        setting = self.setting
        lines = [
            f"# latency, all_reduce, sum of {self.dtype} in place, {setting.peers} peers on this host",
            f"# transport {setting.transport}, congestion control {setting.congestion_control},"
            f" network namespace: {setting.namespace}",
            "# microseconds of the slowest peer, median; exchange: from the call until the result is whole;"
            " commit: until the call returns; cpu: of all peers",
        ]
        title = titles("bytes:8 ops:5 exchange:9 commit:8 p99:8 cpu:7 ok:3 other:5")
        if self.against is not None:
            lines.append(
                f"# right of the bar: {setting.against}, congestion control {setting.default};"
                " ratios: its microseconds / ours"
            )
            title += " " + titles("| gloo:8 p99:8 cpu:7 ok:3 | x_exchange:10 x_commit:8")
        return "\n".join([*lines, title])

    def line(self) -> str:
        text = f"{self.size:>8} {self.ours.operations:>5} {self.exchange * 1e6:>9.1f} {_cells(self.ours)}"
        text += f" {self.others_cpu:>5.0%}"
        if self.against is not None:
            record = self.record()
            text += f" | {_cells(self.against)} | {record['exchange_ratio']:>10.2f} {record['ratio']:>8.2f}"
        return text

    def bar(self) -> Bar:
        values = {"exchange alone": self.exchange * 1e6, "with commit": self.ours.seconds * 1e6}
        if self.against is not None:
            values["gloo"] = self.against.seconds * 1e6
        return Bar(f"{bytes_text(self.size)}, P = {self.setting.peers}", values, "us per operation")


def _cells(timed: Timed) -> str:
    right = "yes" if timed.correct else "NO"
    return f"{timed.seconds * 1e6:>8.1f} {timed.p99 * 1e6:>8.1f} {timed.cpu_seconds * 1e6:>7.1f} {right:>3}"


def measure(options: Options) -> Iterator[Row]:
    """Rows as they are measured, in the order of sizes. Raises UsageError or WorkerFailed."""
    check_dtype(options.dtype)
    item = stored_type(options.dtype).itemsize
    if any(size % item for size in options.sizes):
        raise UsageError(f"sizes are multiples of {item} bytes, of {options.dtype} elements")
    ways = [OURS] + ([GLOO] if options.group.against is not None else [])
    with running(options.group, AllReducePeer) as run:
        for size in options.sizes:
            others = run.others_cpu()
            run.each("prepare", size=size, out=False, dtype=options.dtype)
            timed = take_turns(run.workers, ways, options.repeats)
            share, setting = others.share(), run.setting()
            yield Row(size, options.dtype, timed[OURS], timed.get(GLOO), setting, share)
