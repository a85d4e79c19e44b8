"""`bench wan`: time of one all_reduce between peers that are far apart, against what the network allows.

The network is that of `stress/net` in this project's tree: one namespace per peer and one for the master. It
needs root and /dev/net/tun.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import PcclError, UsageError
from . import wan_bound
from .crew import ANSWER_S, Crew, Worker, each
from .wan_peer import WanMaster, WanPeer
from .wan_row import Options, Row, Run, Wire

PATIENCE = 200  # times the bound: then an operation counts as hanging


class CannotMeasure(PcclError):
    """What this takes is not here: the project's tree, root, TUN devices, a compiler. The text says which."""


def measure(options: Options) -> Iterator[Row]:
    """Rows as they are measured, in the order of sizes. Raises UsageError, CannotMeasure or WorkerFailed."""
    check(options)
    with network(options) as net, Crew() as crew:
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


def network(options: Options) -> Any:
    """An Emulator, the master's namespace being the last."""
    shared = options.rate_of == "peer"
    net = emulated(
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
    for peer in range(options.peers):
        net.set((peer, options.peers), rtt_ms=options.commit_s * 1e3)
    return net


def emulated(places: int, **links: Any) -> Any:
    """An Emulator of that many namespaces, with these links. Raises CannotMeasure where there can be none."""
    tree = emulator()
    try:
        return tree.Emulator(places, **links)
    except tree.NoEmulator as error:
        raise CannotMeasure(f"no emulated network here; missing: {error}") from error


def emulator() -> Any:
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
    ours = "auto" if options.congestion_control == "default" else options.congestion_control
    # The emulated hosts are one: without this, peers would find a way around the network.
    settings = {"congestion_control": ours, "transport": "tcp"}
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
    began = max(call["began"] for call in calls)
    return Run(
        max(call["ended"] for call in calls) - began,
        max(call["to_result"] for call in calls) - began,
        sum(call["cpu"] for call in calls),
        max(call["attempts"] for call in calls),
        all(call["right"] for call in calls),
    )
