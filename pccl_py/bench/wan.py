"""`bench wan`: time of one all_reduce between peers that are far apart, against what the network allows.

The network is that of `stress/net` in this project's tree: one namespace per peer and one for the master. It
needs root and /dev/net/tun.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import PcclError, UsageError
from . import wan_bound
from .crew import ANSWER_S, Crew, Worker, each
from .units import parse_tensors
from .wan_peer import WanMaster, WanPeer

PATIENCE = 200  # times the bound: then an operation counts as hanging


class CannotMeasure(PcclError):
    """What this takes is not here: the project's tree, root, TUN devices, a compiler. The text says which."""


@dataclass(frozen=True)
class Options:
    """`rate_mbit`: of each peer's access line (rate_of "peer"), or of each direction of each link ("link").
    `master_rtt_ms`: between the master and each peer; None: as between peers. `queue_ms`: in the network."""

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

    @property
    def commit_s(self) -> float:
        """DONE to the master and COMMIT from there."""
        return (self.rtt_ms if self.master_rtt_ms is None else self.master_rtt_ms) / 1e3

    @property
    def path(self) -> wan_bound.Path:
        return wan_bound.Path(self.rtt_ms, self.rate_mbit, self.rate_of == "peer")


@dataclass(frozen=True)
class Run:
    """One operation: seconds from when the last peer called to when the last one had its result; CPU seconds
    of all peers; the most attempts of a peer."""

    seconds: float
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
    def right(self) -> bool:
        return all(run.right for run in [self.first, *self.runs])

    @property
    def bounds(self) -> dict[str, float]:
        return wan_bound.bounds(self.size, self.options.peers, self.options.path)

    def json(self) -> str:
        options, plan = self.options, min(self.bounds, key=self.bounds.__getitem__)
        algbw = self.size / self.seconds / 1e9
        bound = self.bounds[plan]
        record = {"bench": "wan", "bytes": self.size, "dtype": "float32", "peers": options.peers}
        record |= {"rtt_ms": options.rtt_ms, "rate_mbit": options.rate_mbit, "loss": options.loss}
        record |= {"rate_of": options.rate_of, "jitter_ms": options.jitter_ms, "reorder": options.reorder}
        record |= {"queue_ms": options.queue_ms, "master_rtt_ms": options.commit_s * 1e3}
        record |= {"seconds": self.seconds, "seconds_all": [run.seconds for run in self.runs]}
        record |= {"seconds_first": self.first.seconds}
        record |= {"algbw": algbw, "busbw": algbw * 2 * (options.peers - 1) / options.peers}
        record |= {"bound": bound, "bound_plan": plan, "bound_ratio": self.seconds / bound}
        record |= {"bound_ratio_with_commit": self.seconds / (bound + options.commit_s)}
        record |= {"bounds": self.bounds}
        record |= {"cpu_seconds": statistics.median(run.cpu for run in self.runs), "transport": "tcp"}
        record |= {"congestion_control": self.congestion_control, "stripes": self.stripes}
        record |= {"operations": len(self.runs), "correct": self.right}
        record |= {"attempts_max": max(run.attempts for run in [self.first, *self.runs])}
        return json.dumps(record | {"network": asdict(self.wire)})


def measure(options: Options) -> Iterator[Row]:
    """Rows as they are measured, in the order of sizes. Raises UsageError, CannotMeasure or WorkerFailed."""
    check(options)
    with _network(options) as net, Crew() as crew:
        workers = _start(crew, net, options)
        for size in options.sizes:
            yield _measure_size(workers, net, options, size)


def check(options: Options) -> None:
    if not 2 <= options.peers <= 16:
        raise UsageError(f"{options.peers} peers: 2 to 16 can be measured")
    if options.repeats < 1:
        raise UsageError("--repeats: at least one operation")
    if any(size % 4 for size in options.sizes):
        raise UsageError("sizes are multiples of 4 bytes, of float32 elements")
    if options.rtt_ms <= 0:
        raise UsageError("--rtt-ms is more than 0; `bench all_reduce` measures without a distance")
    if not 0 <= options.loss < 1 or min(options.rate_mbit, options.jitter_ms, options.queue_ms) < 0:
        raise UsageError("--loss is a share below 1; rates and times are not negative")


def _network(options: Options) -> Any:
    """An Emulator, the master's namespace being the last."""
    tree = _emulator()
    shared = options.rate_of == "peer"
    try:
        net = tree.Emulator(
            options.peers + 1,
            rtt_ms=options.rtt_ms,
            jitter_ms=options.jitter_ms,
            reorder=options.reorder,
            loss=options.loss,
            queue_ms=options.queue_ms,
            rate_mbit=0.0 if shared else options.rate_mbit,
            up_mbit=options.rate_mbit if shared else 0.0,
            down_mbit=options.rate_mbit if shared else 0.0,
            seed=options.seed,
        )
    except tree.NoEmulator as error:
        raise CannotMeasure(f"no emulated network here; missing: {error}") from error
    for peer in range(options.peers):
        net.set((peer, options.peers), rtt_ms=options.commit_s * 1e3)
    return net


def _emulator() -> Any:
    """The module stress.net beside this package: a wheel does not carry it."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "stress" / "net" / "__init__.py").is_file():
        raise CannotMeasure(
            "the emulated network is part of the project's tree (stress/net), not of the installed package: "
            "run `python -m pccl_py bench wan` in a checkout"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return import_module("stress.net")


def _start(crew: Crew, net: Any, options: Options) -> list[Worker]:
    place = options.peers
    master = crew.start("the master", partial(WanMaster, net.namespaces[place], net.addresses[place]))
    address = master.call("describe")["address"]
    settings = {"congestion_control": options.congestion_control}
    workers = [
        crew.start(f"peer {i}", partial(WanPeer, net.namespaces[i], i, options.peers, **settings))
        for i in range(options.peers)
    ]
    each(workers, "join", address=address, min_islands=options.peers)
    return workers


def _measure_size(workers: list[Worker], net: Any, options: Options, size: int) -> Row:
    each(workers, "prepare", size=size)
    patience = ANSWER_S + PATIENCE * max(wan_bound.bounds(size, options.peers, options.path).values())
    before, cpu = net.stats(), net.cpu_seconds()
    first, *runs = [_reduce(workers, patience) for _ in range(options.repeats + 1)]
    after, cpu = net.stats(), net.cpu_seconds() - cpu
    wire = Wire(
        lost=sum(link.lost - before.links[way].lost for way, link in after.links.items()),
        dropped=sum(link.dropped - before.links[way].dropped for way, link in after.links.items()),
        late_mean_us=after.late_mean_us,
        cpu=cpu / sum(run.seconds for run in [first, *runs]),
    )
    names = "/".join(sorted(set(each(workers, "congestion_control"))))
    return Row(size, options, first, runs, names, max(each(workers, "stripes")), wire)


def _reduce(workers: list[Worker], patience: float) -> Run:
    calls = each(workers, "reduce", within=patience)
    seconds = max(call["ended"] for call in calls) - max(call["began"] for call in calls)
    return Run(
        seconds,
        sum(call["cpu"] for call in calls),
        max(call["attempts"] for call in calls),
        all(call["right"] for call in calls),
    )
