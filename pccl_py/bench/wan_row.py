"""What `bench wan` is asked, and what it answers for one size."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from . import wan_bound
from .plot import Bar
from .report import titles
from .units import bytes_text, parse_tensors


@dataclass(frozen=True)
class Options:
    """`rate_mbit`: of each peer's access line (rate_of "peer"), or of each direction of each link ("link").
    `master_rtt_ms`: between the master and each peer; None: as between peers. `queue_ms`: in the network.
    `goal`: the most that the time may be, in times of the bound."""

    peers: int = 2
    sizes: Sequence[int] = field(default_factory=lambda: parse_tensors("64K,64M"))
    rtt_ms: float = 100.0
    rate_mbit: float = 1000.0
    loss: float = 0.0
    jitter_ms: float = 0.0
    reorder: bool = False
    queue_ms: float = 50.0
    rate_of: str = "peer"
    master_rtt_ms: float | None = None
    congestion_control: str = "auto"
    repeats: int = 5
    seed: int = 1
    goal: float | None = None

    @property
    def commit_s(self) -> float:
        """DONE to the master and COMMIT from there."""
        return (self.rtt_ms if self.master_rtt_ms is None else self.master_rtt_ms) / 1e3

    @property
    def path(self) -> wan_bound.Path:
        return wan_bound.Path(self.rtt_ms, self.rate_mbit, self.rate_of == "peer")


@dataclass(frozen=True)
class Run:
    """One operation, from when the last peer called: seconds to when the last one had its result committed,
    and, `exchange`, to when the last one held it; CPU seconds of all peers; the most attempts of a peer."""

    seconds: float
    exchange: float
    cpu: float
    attempts: int
    right: bool


@dataclass(frozen=True)
class Wire:
    """What the network did meanwhile. `late_mean_us` is large where the machine is too busy to be a network;
    `cpu`: part of a core that it took."""

    lost: int
    dropped: int
    late_mean_us: float
    cpu: float


@dataclass(frozen=True)
class Row:
    """One size. `first`: the operation before those that are counted, with new connections."""

    size: int
    options: Options
    first: Run
    runs: Sequence[Run]
    congestion_control: str
    stripes: int
    wire: Wire

    @property
    def seconds(self) -> float:
        return statistics.median(run.seconds for run in self.runs)

    @property
    def exchange(self) -> float:
        return statistics.median(run.exchange for run in self.runs)

    @property
    def right(self) -> bool:
        return all(run.right for run in [self.first, *self.runs])

    @property
    def bounds(self) -> dict[str, float]:
        return wan_bound.bounds(self.size, self.options.peers, self.options.path)

    @property
    def plan(self) -> str:
        """The quickest one."""
        return min(self.bounds, key=self.bounds.__getitem__)

    @property
    def bound(self) -> float:
        return self.bounds[self.plan]

    @property
    def exchange_ratio(self) -> float:
        return self.exchange / self.bound

    @property
    def commit_ratio(self) -> float:
        """With the commit on both sides."""
        return self.seconds / (self.bound + self.options.commit_s)

    @property
    def reached(self) -> bool | None:
        """Whether both are within the goal; None without a goal."""
        goal = self.options.goal
        return None if goal is None else max(self.exchange_ratio, self.commit_ratio) <= goal

    def record(self) -> dict[str, Any]:
        options = self.options
        algbw = self.size / self.seconds / 1e9
        record = {"bench": "wan", "bytes": self.size, "dtype": "float32", "peers": options.peers}
        record |= {"rtt_ms": options.rtt_ms, "rate_mbit": options.rate_mbit, "loss": options.loss}
        record |= {"rate_of": options.rate_of, "jitter_ms": options.jitter_ms, "reorder": options.reorder}
        record |= {"queue_ms": options.queue_ms, "master_rtt_ms": options.commit_s * 1e3}
        record |= {"seconds": self.seconds, "seconds_all": [run.seconds for run in self.runs]}
        record |= {"seconds_first": self.first.seconds, "exchange_seconds": self.exchange}
        record |= {"algbw": algbw, "busbw": algbw * 2 * (options.peers - 1) / options.peers}
        record |= {"bound": self.bound, "bound_plan": self.plan, "bound_ratio": self.seconds / self.bound}
        record |= {"bound_ratio_exchange": self.exchange_ratio, "bound_ratio_with_commit": self.commit_ratio}
        record |= {"bounds": self.bounds, "goal": options.goal, "reached": self.reached}
        record |= {"cpu_seconds": self._cpu, "transport": "tcp"}
        record |= {"congestion_control": self.congestion_control, "stripes": self.stripes}
        record |= {"operations": len(self.runs), "correct": self.right}
        record |= {"attempts_max": max(run.attempts for run in [self.first, *self.runs])}
        return record | {"network": asdict(self.wire)}

    @property
    def _cpu(self) -> float:
        return statistics.median(run.cpu for run in self.runs)

    def head(self) -> str:
        options = self.options
        rate = f"{options.rate_mbit:g} Mbit/s per {options.rate_of}" if options.rate_mbit else "no rate limit"
        return "\n".join(
            [
                f"# wan, all_reduce, sum of float32, {options.peers} peers, out of place;"
                f" {options.rtt_ms:g} ms RTT ({options.commit_s * 1e3:g} to the master), {rate},"
                f" loss {options.loss:g}",
                f"# transport tcp, congestion control {self.congestion_control}, {self.stripes} stripes",
                "# median seconds from the last call: exchange to the last whole result, commit to the last"
                " return; first: with new connections; algbw in GB/s",
                "# bound: of the quickest plan, bytes at the rate plus hops; x bound: exchange / bound;"
                " +commit: commit / (bound + a round trip to the master)",
                "# goal: the most of both; lost, dropped: packets; late us: of the emulator, on average",
                titles("bytes:12 ops:4 exchange:9 commit:9 first:9 algbw:7 bound:8 by:8 x_bound:7 +commit:7")
                + titles(" goal:6 cpu_s:8 ok:3 lost:6 dropped:7 late_us:7"),
            ]
        )

    def line(self) -> str:
        goal = "" if self.options.goal is None else f"{self.options.goal:.2f}"
        return (
            f"{self.size:>12} {len(self.runs):>4} {self.exchange:>9.4f} {self.seconds:>9.4f}"
            f" {self.first.seconds:>9.4f} {self.size / self.seconds / 1e9:>7.4f} {self.bound:>8.4f}"
            f" {self.plan:>8} {self.exchange_ratio:>7.2f} {self.commit_ratio:>7.2f} {goal:>5}"
            f" {self._cpu:>8.4f} {'yes' if self.right else 'NO':>3} {self.wire.lost:>6}"
            f" {self.wire.dropped:>7} {self.wire.late_mean_us:>7.0f}"
        )

    def bar(self) -> Bar:
        options = self.options
        label = f"{bytes_text(self.size)}, P = {options.peers}, {options.rtt_ms:g} ms"
        values = {"bound": self.bound, "exchange": self.exchange, "with commit": self.seconds}
        return Bar(label, values, "seconds")
