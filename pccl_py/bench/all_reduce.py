"""`bench all_reduce`: time of one operation, alone or against gloo in the same run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError
from .all_reduce_peer import OURS, OURS_OUT, OURS_SEALED, AllReducePeer, check_dtype
from .group import GLOO, Group, Setting, running
from .plot import Bar
from .report import titles
from .tensors import stored_type
from .turns import Timed, repeats_of, take_turns
from .units import bytes_text

PLACES = {OURS: "in place", OURS_OUT: "out of place", OURS_SEALED: "encrypted", GLOO: "in place"}
_SIDE = "seconds:10 algbw:6 busbw:6 cpu_s:9 ok:3 cong:5"


@dataclass(frozen=True)
class Options:
    sizes: Sequence[int]
    group: Group = field(default_factory=Group)
    dtype: str = "float32"
    ways: Sequence[str] = (OURS,)
    repeats: int | None = None


@dataclass(frozen=True)
class Row:
    """What is printed for one of our ways at one size, beside the other library's."""

    size: int
    way: str
    dtype: str
    ours: Timed
    against: Timed | None
    setting: Setting
    others_cpu: float  # part of the machine's CPU time that others used meanwhile
    plain: Timed | None = None  # of what is encrypted: the same without

    @property
    def right(self) -> bool:
        return self.ours.correct and (self.against is None or self.against.correct)

    @property
    def ratio(self) -> float | None:
        return None if self.against is None else self.against.seconds / self.ours.seconds

    @property
    def cost(self) -> float | None:
        """Of encryption, as the part of the throughput that is lost."""
        return None if self.plain is None else 1 - self.plain.seconds / self.ours.seconds

    def record(self) -> dict[str, Any]:
        setting = self.setting
        record = {"bench": "all_reduce", "bytes": self.size, "place": PLACES[self.way], "dtype": self.dtype}
        record |= {"peers": setting.peers, "namespace": setting.namespace}
        record |= {"others_cpu": round(self.others_cpu, 3)}
        record |= self.ours.measures(self.size, setting.peers, setting.transport, setting.congestion_control)
        if self.cost is not None:
            record["encryption_cost"] = self.cost
        if self.against is not None:
            theirs = self.against.measures(self.size, setting.peers, "tcp", setting.default)
            record["against"] = {"name": setting.against, "place": "in place"} | theirs
            record["ratio"] = self.ratio
            record["cpu_ratio"] = self.ours.cpu_seconds / max(self.against.cpu_seconds, 1e-9)
        return record

    def head(self) -> str:
        setting = self.setting
        lines = [
            f"# all_reduce, sum of {self.dtype}, {setting.peers} peers on this host, each a process; every"
            " operation commits through the master",
            f"# transport {setting.transport}, network namespace: {setting.namespace}",
            "# seconds: median over operations of the slowest peer; algbw, busbw in GB/s, busbw = 2(P-1)/P"
            " algbw; cpu s: user and system, of all peers, per operation",
            "# cong: congestion control; other: part of the machine's CPU time that other processes used",
        ]
        if self.setting.secret:
            lines.append("# encrypted: in place, in a run with a secret; behind it, what throughput it costs")
        title = titles(f"bytes:12 place:12 ops:4 {_SIDE} other:5")
        if self.against is not None:
            lines.append(
                f"# right of the bar: {setting.against}, in place; ratio: its seconds / ours;"
                " cpu: our CPU seconds / its"
            )
            title += " " + titles(f"| {_SIDE} | ratio:5 cpu:5")
        return "\n".join([*lines, title])

    def line(self) -> str:
        text = f"{self.size:>12} {PLACES[self.way]:>12} {self.ours.operations:>4}"
        text += f" {self._side(self.ours, self.setting.congestion_control)} {self.others_cpu:>5.0%}"
        if self.against is not None:
            text += f" | {self._side(self.against, self.setting.default)} |"
            text += f" {self.ratio:>5.2f} {self.record()['cpu_ratio']:>5.2f}"
        if self.cost is not None:
            text += f" | encryption costs {self.cost:.0%}"
        return text

    def bar(self) -> Bar:
        label = f"{bytes_text(self.size)}, P = {self.setting.peers}"
        values = {f"ours {PLACES[self.way]}": self._busbw(self.ours)}
        if self.against is not None:
            values["gloo"] = self._busbw(self.against)
        return Bar(label, values, "bus bandwidth, GB/s")

    def _busbw(self, timed: Timed) -> float:
        return float(timed.measures(self.size, self.setting.peers, "", "")["busbw"])

    def _side(self, timed: Timed, congestion_control: str) -> str:
        busbw, right = self._busbw(timed), "yes" if timed.correct else "NO"
        algbw = self.size / timed.seconds / 1e9
        return (
            f"{timed.seconds:>10.6f} {algbw:>6.2f} {busbw:>6.2f} {timed.cpu_seconds:>9.6f} {right:>3}"
            f" {congestion_control:>5}"
        )


def measure(options: Options) -> Iterator[Row]:
    """Rows as they are measured, in the order of sizes and ways. Raises UsageError or WorkerFailed."""
    check_dtype(options.dtype)
    item = stored_type(options.dtype).itemsize
    if any(size % item for size in options.sizes):
        raise UsageError(f"sizes are multiples of {item} bytes, of {options.dtype} elements")
    with running(options.group, AllReducePeer) as run:
        ways = [*options.ways] + ([GLOO] if options.group.against is not None else [])
        for size in options.sizes:
            others = run.others_cpu()
            run.each("prepare", size=size, out=OURS_OUT in ways, dtype=options.dtype)
            timed = take_turns(run.workers, ways, options.repeats or repeats_of(size))
            share = others.share()
            setting = run.setting()
            for way in options.ways:
                plain = timed[OURS] if way == OURS_SEALED else None
                yield Row(size, way, options.dtype, timed[way], timed.get(GLOO), setting, share, plain)
