"""`bench all_reduce`: time of one operation, alone or against gloo in the same run.

The ways to reduce take turns in short blocks on the same tensors in the same processes, so that what disturbs
the machine disturbs all of them. The time of an operation is that of its slowest peer; the median is told.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .all_reduce_peer import GLOO, OURS, OURS_OUT, AllReducePeer
from .crew import Crew, Worker, each
from .machine import OthersCpu
from .peers import start_master
from .units import KIB, MIB

BLOCK_MAX = 40  # sums in place grow with each operation; so many stay finite
ROUNDS_MIN = 5
PLACES = {OURS: "in place", OURS_OUT: "out of place", GLOO: "in place"}


@dataclass(frozen=True)
class Options:
    peers: int
    sizes: Sequence[int]
    against: str | None = None
    congestion_control: str = "auto"
    transport: str = "auto"
    ways: Sequence[str] = (OURS,)
    repeats: int | None = None
    namespace: bool = True  # with `against`: both in one whose default congestion control is reno


@dataclass(frozen=True)
class Timed:
    """One way to reduce at one size."""

    seconds: float
    cpu_seconds: float
    operations: int
    correct: bool


@dataclass(frozen=True)
class Row:
    """What is printed for one of our ways at one size, beside the other library's."""

    size: int
    way: str
    ours: Timed
    against: Timed | None
    setting: Setting
    others_cpu: float  # part of the machine's CPU time that others used meanwhile

    def json(self) -> str:
        record = {"bench": "all_reduce", "bytes": self.size, "place": PLACES[self.way], "dtype": "float32"}
        record |= {"peers": self.setting.peers, "namespace": self.setting.namespace}
        record |= {"links": self.setting.links}
        record |= {"others_cpu": round(self.others_cpu, 3)}
        record |= self._measures(self.ours, self.setting.congestion_control)
        record["transport"] = self.setting.transport
        if self.against is not None:
            measures = self._measures(self.against, self.setting.default)
            record["against"] = {"name": self.setting.against, "place": "in place"} | measures
            record["ratio"] = self.ratio
        return json.dumps(record)

    @property
    def right(self) -> bool:
        return self.ours.correct and (self.against is None or self.against.correct)

    @property
    def ratio(self) -> float | None:
        return None if self.against is None else self.against.seconds / self.ours.seconds

    def bandwidths(self, timed: Timed) -> tuple[float, float]:
        """algbw and busbw in GB/s."""
        algbw = self.size / timed.seconds / 1e9
        return algbw, algbw * 2 * (self.setting.peers - 1) / self.setting.peers

    def _measures(self, timed: Timed, congestion_control: str) -> dict[str, Any]:
        algbw, busbw = self.bandwidths(timed)
        return {
            "seconds": timed.seconds,
            "algbw": algbw,
            "busbw": busbw,
            "cpu_seconds": timed.cpu_seconds,
            "transport": "tcp",
            "congestion_control": congestion_control,
            "operations": timed.operations,
            "correct": timed.correct,
        }


@dataclass(frozen=True)
class Setting:
    """What all rows have in common. `transport`: what was asked for, `links`: what they found possible.
    `namespace`: which one it ran in, for people."""

    peers: int
    transport: str
    links: str
    congestion_control: str
    default: str
    namespace: str
    against: str | None


def measure(options: Options) -> Iterator[Row]:
    """Rows as they are measured, in the order of sizes and ways. Raises UsageError or WorkerFailed."""
    check(options)
    with Crew() as crew, tempfile.TemporaryDirectory() as folder:
        own_default = "reno" if options.against is not None and options.namespace else None
        master = start_master(crew, own_default)
        workers = _start_peers(crew, options, master)
        version = ""
        if options.against is not None:
            version = each(workers, "join_gloo", store=str(Path(folder) / "store"))[0]
        setting = _setting(options, master[1], workers, version)
        for size in options.sizes:
            others = OthersCpu([master[0], *workers])
            timed = _measure_size(workers, options, size)
            share = others.share()
            for way in options.ways:
                yield Row(size, way, timed[way], timed.get(GLOO), setting, share)


def check(options: Options) -> None:
    if options.against not in (None, GLOO):
        raise UsageError(f"--against {options.against}: only gloo is known")
    if options.against is not None and find_spec("torch") is None:
        raise UsageError("--against gloo needs torch: pip install 'pccl-py[torch]'")
    if not 2 <= options.peers <= 16:
        raise UsageError(f"{options.peers} peers: 2 to 16 can be measured")
    if any(size % 4 for size in options.sizes):
        raise UsageError("sizes are multiples of 4 bytes, of float32 elements")


def repeats_of(size: int) -> int:
    """So many operations that each way takes some seconds at most."""
    if size <= 64 * KIB:
        return 400
    return 100 if size <= 4 * MIB else 30 if size <= 64 * MIB else 10


def _start_peers(crew: Crew, options: Options, master: tuple[Worker, dict[str, Any]]) -> list[Worker]:
    settings = {"congestion_control": options.congestion_control, "transport": options.transport}
    workers = [
        crew.start(f"peer {i}", partial(AllReducePeer, master[0].pid, i, options.peers, **settings))
        for i in range(options.peers)
    ]
    each(workers, "join", address=master[1]["address"], min_islands=options.peers)
    return workers


def _setting(options: Options, master: dict[str, Any], workers: list[Worker], version: str) -> Setting:
    where = f"the host's, default {master['default']}"
    if master["isolated"]:
        where = f"its own, default {master['default']}"
    elif master["why"]:
        where += f" (no own one: {master['why']})"
    names = sorted(set(each(workers, "congestion_control")))
    against = f"{options.against} (torch {version})" if options.against is not None else None
    links = "/".join(sorted(set(each(workers, "transport"))))
    return Setting(options.peers, options.transport, links, "/".join(names), master["default"], where, against)


def _measure_size(workers: list[Worker], options: Options, size: int) -> dict[str, Timed]:
    ways = [*options.ways] + ([GLOO] if options.against is not None else [])
    each(workers, "prepare", size=size, out=OURS_OUT in ways, shared=options.transport == "shm")
    correct = {way: all(each(workers, "check", way=way)) for way in ways}
    repeats = options.repeats or repeats_of(size)
    rounds = min(repeats, max(ROUNDS_MIN, -(-repeats // BLOCK_MAX)))
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds):
        operations = repeats * (turn + 1) // rounds - repeats * turn // rounds
        for way in ways if turn % 2 == 0 else reversed(ways):
            blocks = each(workers, "block", way=way, operations=operations)
            seconds[way] += [max(times) for times in zip(*(b["seconds"] for b in blocks), strict=True)]
            cpu[way].append(sum(b["cpu"] for b in blocks) / operations)
    median = statistics.median
    return {way: Timed(median(seconds[way]), median(cpu[way]), repeats, correct[way]) for way in ways}
