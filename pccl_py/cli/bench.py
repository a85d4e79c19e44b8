"""`python -m pccl_py bench NAME`: measurements, alone or against others."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from typing import Any

from ..bench import (
    all_reduce,
    all_reduce_table,
    join,
    memory,
    pause,
    recovery,
    sync_state,
    topology,
    wan,
    wan_table,
)
from ..bench.all_reduce_peer import OURS, OURS_OUT
from ..bench.report import Figure, print_figures
from ..bench.units import bytes_text, parse_tensor, parse_tensors
from .numbers import parsed, whole

CANNOT_MEASURE = 77  # the exit status of what was skipped
Measure = Callable[[argparse.Namespace], Iterable[Figure]]


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bench",
        help="measure, alone or against others",
        description="Starts a master and its peers as processes on this host, measures, and checks values. "
        "The exit status is 1 where a value was wrong or a process failed.",
    )
    benches = parser.add_subparsers(dest="bench", metavar="NAME", required=True)
    _add_all_reduce(benches)
    bench = _add(
        benches, "recovery", "kill -9 of one of 3 peers", lambda a: recovery.measure(a.kills, a.sizes)
    )
    _count(bench, "--kills", 100, "per size, with and without forked children of the victim")
    _sizes(bench, "4M,1K")
    bench = _add(benches, "join", "a newcomer in a running group of 2", lambda a: join.measure(a.repeats))
    _count(bench, "--repeats", 30, "newcomers")
    bench = _add(
        benches, "topology", "update_topology, nobody waiting", lambda a: topology.measure(a.peers, a.repeats)
    )
    _peers(bench)
    _count(bench, "--repeats", 1000, "calls")
    bench = _add(
        benches,
        "sync_state",
        "sync_shared_state, in sync and one float off",
        lambda a: sync_state.measure(a.peers, a.repeats, a.size),
    )
    _peers(bench)
    _count(bench, "--repeats", 9, "synchronizations")
    _size(bench, sync_state.SIZE)
    bench = _add(
        benches, "memory", "extra memory of an all_reduce", lambda a: memory.measure(a.peers, a.size)
    )
    _peers(bench)
    _size(bench, memory.SIZE)
    bench = _add(benches, "pause", "SIGSTOP of one of 3 peers", lambda a: pause.measure(a.repeats))
    _count(bench, "--repeats", 3, "times")
    _add_wan(benches)


def run(args: argparse.Namespace) -> int:
    if args.bench == "all_reduce":
        return _all_reduce(args)
    if args.bench == "wan":
        return _wan(args)
    figures = list(args.measure(args))
    print_figures(figures, as_json=args.json)
    return 0 if figures and all(figure.right for figure in figures) else 1


def _add(benches: Any, name: str, about: str, measure: Measure) -> argparse.ArgumentParser:
    bench: argparse.ArgumentParser = benches.add_parser(name, help=about, description=about)
    bench.add_argument("--json", action="store_true", help="one object per line: bench, figure, value, goal")
    bench.set_defaults(measure=measure)
    return bench


def _count(bench: argparse.ArgumentParser, flag: str, default: int, what: str) -> None:
    bench.add_argument(flag, type=whole(1), default=default, metavar="N", help=f"{what} (default {default})")


def _peers(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("--peers", type=whole(2, 16), default=2, metavar="N", help="processes (default 2)")


def _size(bench: argparse.ArgumentParser, default: int) -> None:
    text = f"of the tensor (default {bytes_text(default)})"
    bench.add_argument("--size", type=parsed(parse_tensor), default=default, metavar="SIZE", help=text)


def _sizes(bench: argparse.ArgumentParser, default: str) -> None:
    text = f"of the tensors, with K, M, G (default {default})"
    bench.add_argument("--sizes", type=parsed(parse_tensors), default=default, metavar="LIST", help=text)


# ---- all_reduce --------------------------------------------------------------------------------------------


def _add_all_reduce(benches: Any) -> None:
    bench: argparse.ArgumentParser = benches.add_parser(
        "all_reduce",
        help="time and bandwidth of one operation, commit included",
        description="Time and bandwidth of one operation, commit included. With --against, both take turns "
        "on the same tensors in a network namespace whose default congestion control is reno, since the "
        "other library takes the default; where that is not permitted, it says so and runs as it is.",
    )
    _peers(bench)
    _sizes(bench, "1K,1M,64M,256M")
    bench.add_argument("--against", choices=["gloo"], help="the same with torch.distributed, in place")
    bench.add_argument(
        "--transport", choices=["auto", "tcp", "shm", "cma"], default="auto",
        help="how data travels; shm: tensors of pccl_py.empty() (default auto)",
    )  # fmt: skip
    bench.add_argument(
        "--congestion-control",
        default="auto",
        metavar="NAME",
        help="ours: auto, system, cubic, reno, bbr ...",
    )
    bench.add_argument("--in-place", action="store_true", help="results over inputs (the default)")
    bench.add_argument("--out-of-place", action="store_true", help="a row for results elsewhere")
    bench.add_argument("--repeats", type=whole(1), metavar="N", help="operations per size (default: by size)")
    bench.add_argument("--no-namespace", action="store_true", help="against others: run as it is")
    bench.add_argument("--json", action="store_true", help="one object per line")


def _all_reduce(args: argparse.Namespace) -> int:
    ways = [OURS_OUT] if args.out_of_place else []
    if args.in_place or not ways:
        ways.insert(0, OURS)
    options = all_reduce.Options(
        peers=args.peers,
        sizes=args.sizes,
        against=args.against,
        congestion_control=args.congestion_control,
        transport=args.transport,
        ways=ways,
        repeats=args.repeats,
        namespace=not args.no_namespace,
    )
    right: list[bool] = []
    for row in all_reduce.measure(options):
        if not args.json and not right:
            print(all_reduce_table.head(row))
        print(row.json() if args.json else all_reduce_table.line(row), flush=True)
        right.append(row.right)
    return 0 if right and all(right) else 1


# ---- wan ---------------------------------------------------------------------------------------------------


def _add_wan(benches: Any) -> None:
    about = "an all_reduce between peers far apart, in an emulated network"
    text = (
        "Peers and master in network namespaces, linked by the emulator of the project's tree (stress/net): "
        "it takes a checkout, root, /dev/net/tun and g++. Where one of them is missing, it says so and exits "
        f"with {CANNOT_MEASURE}. bound: seconds that the quickest plan takes on this network, as bytes at "
        "its rate plus hops; bound_ratio: seconds / bound, the commit included in the seconds."
    )
    bench: argparse.ArgumentParser = benches.add_parser("wan", help=about, description=text)
    _peers(bench)
    _sizes(bench, "64K,64M")
    _number(bench, "--rtt-ms", 100.0, "between two peers")
    _number(bench, "--rate-mbit", 1000.0, "of IP bytes; 0: no limit")
    bench.add_argument(
        "--rate-of", choices=["peer", "link"], default="peer", help="each peer's access line, or each link"
    )
    _number(bench, "--loss", 0.0, "share of packets")
    _number(bench, "--jitter-ms", 0.0, "more delay per packet and direction, up to so much")
    bench.add_argument("--reorder", action="store_true", help="jitter lets packets overtake")
    _number(bench, "--queue-ms", 50.0, "what a line's queue holds")
    bench.add_argument(
        "--master-rtt-ms", type=float, metavar="MS", help="to the master (default: as between peers)"
    )
    bench.add_argument("--congestion-control", default="auto", metavar="NAME", help="auto, cubic, bbr ...")
    _count(bench, "--repeats", 5, "operations per size, after one that is told apart")
    bench.add_argument("--seed", type=int, default=1, metavar="N", help="of what is lost (default 1)")
    bench.add_argument("--json", action="store_true", help="one object per line")


def _number(bench: argparse.ArgumentParser, flag: str, default: float, what: str) -> None:
    bench.add_argument(flag, type=float, default=default, metavar="X", help=f"{what} (default {default:g})")


def _wan(args: argparse.Namespace) -> int:
    options = wan.Options(
        **{name: getattr(args, name) for name in wan.Options.__dataclass_fields__ if hasattr(args, name)}
    )
    right: list[bool] = []
    try:
        for row in wan.measure(options):
            if not args.json and not right:
                print(wan_table.head(row))
            print(row.json() if args.json else wan_table.line(row), flush=True)
            right.append(row.right)
    except wan.CannotMeasure as error:
        print(f"pccl_py bench wan: {error}", file=sys.stderr)
        return CANNOT_MEASURE
    return 0 if right and all(right) else 1
