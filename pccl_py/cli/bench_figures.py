"""The benches that give figures with goals: each measures everything, then prints."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from ..bench import (
    dashboard,
    ddp,
    encryption,
    heal,
    join,
    kill,
    master,
    memory,
    optim,
    pause,
    plot,
    scale,
    snapshot,
    sync,
    topology,
)
from ..bench.group import GLOO, Group
from ..bench.report import Figure, print_figures
from ..bench.transports import TRANSPORTS
from ..bench.units import parse_size
from ..errors import UsageError
from . import bench_arguments as arguments
from .numbers import parsed, whole

Measure = Callable[[argparse.Namespace], Iterable[Figure]]


def add_all(benches: Any) -> None:
    bench = _add(benches, "kill", "kill -9 of one of 3 peers", _kill)
    arguments.peers(bench, kill.PEERS)
    arguments.count(bench, "--kills", 100, "per size, with and without forked children of the victim")
    arguments.sizes(bench, "4M,1K")
    arguments.path(bench)
    bench = _add(benches, "master", "kill -9 of the master in mid-operation", _master)
    bench.add_argument("--store", choices=[*master.STORES, "all"], default="all", help="default all")
    arguments.peers(bench, master.PEERS)
    arguments.count(bench, "--kills", 3, "per store")
    bench = _add(benches, "ddp", "training steps against DDP on gloo, and kills in them", _ddp)
    arguments.several_peers(bench, "2,3")
    arguments.sizes(bench, "50K,1M", "of a model's parameters")
    arguments.count(bench, "--repeats", 400, "steps per size")
    bench.add_argument("--kills", type=whole(0), default=10, metavar="N", help="of one of 3 (default 10)")
    bench.add_argument("--no-namespace", action="store_true", help="run as it is")
    arguments.path(bench)
    arguments.security(bench)
    bench = _add(benches, "heal", "a newcomer takes the state of peers that train", _heal)
    # The wait for a step boundary is anything up to a step: of five, the median moved by a fifth.
    arguments.count(bench, "--repeats", 11, "newcomers")
    arguments.size(bench, heal.SIZE)
    arguments.count(bench, "--batch", heal.BATCH, "samples of all peers: how long a step is")
    arguments.path(bench)
    bench = _add(benches, "optim", "what the optimizers cost, and what they hide", _optim)
    about = "peers 100 ms and 100 Mbit/s apart; as bench wan, it takes root"
    bench.add_argument("--overlap", action="store_true", help=about)
    arguments.count(bench, "--repeats", 9, "of what is short, of which the shortest counts")
    arguments.size(bench, optim.SIZE)
    bench = _add(benches, "join", "a newcomer in a running group of 2", _join)
    arguments.count(bench, "--repeats", 30, "newcomers")
    arguments.path(bench)
    bench = _add(benches, "sync", "sync_shared_state, in sync and one float off", _sync)
    arguments.peers(bench)
    arguments.count(bench, "--repeats", 9, "synchronizations")
    arguments.size(bench, sync.SIZE)
    arguments.path(bench)
    bench = _add(benches, "memory", "extra memory of an all_reduce", _memory)
    arguments.peers(bench)
    arguments.size(bench, memory.SIZE)
    arguments.path(bench)
    bench = _add(benches, "topology", "update_topology, nobody waiting", _topology)
    arguments.peers(bench)
    arguments.count(bench, "--repeats", 1000, "calls")
    bench = _add(benches, "pause", "SIGSTOP of one of 3 peers", lambda args: pause.measure(args.repeats))
    arguments.count(bench, "--repeats", 3, "times")
    about = "kill -9 of one of 3 peers, until a browser shows it on the master's page"
    bench = _add(benches, "dashboard", about, lambda args: dashboard.measure(args.kills))
    arguments.count(bench, "--kills", 10, "in mid-operation, and as many of peers that do nothing")
    bench = _add(
        benches, "encryption", "what TLS costs over emulated lines of 1 Gbit/s; as root", _encryption
    )
    arguments.size(bench, encryption.SIZE)
    arguments.count(bench, "--repeats", 15, "operations with, and as many without")
    bench = _add(benches, "scale", "control cost against the number of peers, real ones on loopback", _scale)
    bench.add_argument(
        "--peers", type=parsed(_crowds), default="25,50,100", metavar="LIST", help="default 25,50,100"
    )
    arguments.count(bench, "--repeats", 20, "operations")
    bench = _add(
        benches, "snapshot", "snapshots in memory, coded among hosts, and hosts that are lost", _snapshot
    )
    about = "of a trainer's state; twice that where a host is lost (default 512M)"
    bench.add_argument("--size", type=parsed(parse_size), default="512M", metavar="SIZE", help=about)
    arguments.count(bench, "--repeats", 3, "of what is measured, after a first one")
    about = f"default {','.join(snapshot.PARTS)}"
    bench.add_argument(
        "--parts", type=parsed(_parts), default=",".join(snapshot.PARTS), metavar="LIST", help=about
    )
    about = "of keepers, as if each were on a host of its own (default tcp)"
    bench.add_argument("--transport", choices=TRANSPORTS, default="tcp", help=about)


def _add(benches: Any, name: str, about: str, measure: Measure) -> argparse.ArgumentParser:
    bench = arguments.add(benches, name, about)
    bench.set_defaults(run_bench=run, measure=measure)
    return bench


def run(args: argparse.Namespace) -> int:
    figures = list(args.measure(args))
    print_figures(figures, as_json=args.json)
    if args.plot is not None and figures:
        plot.draw(f"bench {args.bench}", [figure.bar() for figure in figures], args.plot)
    return 0 if figures and all(figure.right for figure in figures) else 1


def _kill(args: argparse.Namespace) -> Iterable[Figure]:
    return kill.measure(args.kills, args.sizes, args.peers, **arguments.settings_of(args))


def _master(args: argparse.Namespace) -> Iterable[Figure]:
    for store in master.STORES if args.store == "all" else (args.store,):
        yield from master.measure(store, args.kills, args.peers)


def _ddp(args: argparse.Namespace) -> Iterable[Figure]:
    for number, peers in enumerate(args.peers):
        group = Group(peers, GLOO, args.congestion_control, args.transport, not args.no_namespace)
        group = replace(group, security=args.security)
        yield from ddp.measure(group, args.sizes, args.repeats, args.kills if number == 0 else 0)


def _heal(args: argparse.Namespace) -> Iterable[Figure]:
    return heal.measure(args.repeats, args.size, args.batch, **arguments.settings_of(args))


def _optim(args: argparse.Namespace) -> Iterable[Figure]:
    return optim.overlap() if args.overlap else optim.measure(args.repeats, args.size)


def _join(args: argparse.Namespace) -> Iterable[Figure]:
    return join.measure(args.repeats, **arguments.settings_of(args))


def _sync(args: argparse.Namespace) -> Iterable[Figure]:
    return sync.measure(args.peers, args.repeats, args.size, **arguments.settings_of(args))


def _memory(args: argparse.Namespace) -> Iterable[Figure]:
    return memory.measure(args.peers, args.size, **arguments.settings_of(args))


def _topology(args: argparse.Namespace) -> Iterable[Figure]:
    return topology.measure(args.peers, args.repeats)


def _encryption(args: argparse.Namespace) -> Iterable[Figure]:
    return encryption.measure(args.size, args.repeats)


def _crowds(text: str) -> list[int]:
    return [whole(2, scale.PEERS_MAX)(part) for part in text.split(",")]


def _scale(args: argparse.Namespace) -> Iterable[Figure]:
    return scale.measure(args.peers, args.repeats)


def _snapshot(args: argparse.Namespace) -> Iterable[Figure]:
    return snapshot.measure(args.size, args.repeats, args.parts, args.transport)


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    if unknown := [part for part in parts if part not in snapshot.PARTS]:
        raise UsageError(f"{unknown[0]!r} is no part of it: {', '.join(snapshot.PARTS)}")
    return parts
