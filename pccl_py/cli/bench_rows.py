"""The benches that print row by row, as they measure."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..bench import (
    all_reduce,
    backend,
    codec,
    concurrent,
    erasure,
    erasure_others,
    kernels,
    kernels_worker,
    latency,
    plot,
    quantized,
    recorder,
    wan,
    wan_goals,
    wan_row,
)
from ..bench.all_reduce_peer import OURS, OURS_OUT, OURS_SEALED
from ..bench.group import Group
from ..bench.report import Row
from ..bench.units import parse_size, parse_tensors
from ..errors import UsageError
from ..quantization import KINDS
from ..tensors import DTYPE_CODES
from . import bench_arguments as arguments
from .numbers import parsed, whole

Measure = Callable[[argparse.Namespace], Iterable[Row]]
NAMESPACE = (
    " With --against, both take turns on the same tensors in a network namespace whose default congestion "
    "control is chosen by --congestion-control, since the other library takes the default; where that is not "
    "permitted, it says so and runs as it is."
)


def add_all(benches: Any) -> None:
    _add_all_reduce(benches)
    _add_quantized(benches)
    _add_latency(benches)
    _add_recorder(benches)
    _add_torch(benches)
    _add_concurrent(benches)
    _add_kernels(benches)
    _add_erasure(benches)
    _add_wan(benches)
    _add_ckpt(benches)
    _add_reshard(benches)


def run(args: argparse.Namespace) -> int:
    right: list[bool] = []
    bars: list[plot.Bar] = []
    head = ""
    for row in args.measure(args):
        if not args.json and row.head() != head:
            head = row.head()
            print(head)
        print(json.dumps(row.record()) if args.json else row.line(), flush=True)
        right.append(row.right)
        bars.append(row.bar())
    if args.plot is not None and bars:
        plot.draw(f"bench {args.bench}", bars, args.plot)
    return 0 if right and all(right) else 1


def _add(benches: Any, name: str, measure: Measure, about: str, text: str = "") -> argparse.ArgumentParser:
    bench = arguments.add(benches, name, about, text)
    bench.set_defaults(run_bench=run, measure=measure)
    return bench


def _groups(args: argparse.Namespace) -> Iterator[Group]:
    for peers in args.peers:
        yield Group(
            peers,
            getattr(args, "against", None),
            args.congestion_control,
            args.transport,
            not getattr(args, "no_namespace", False),
            getattr(args, "secret", False),
            getattr(args, "security", "none"),
        )


# ---- all_reduce, latency, concurrent -----------------------------------------------------------------------


def _add_all_reduce(benches: Any) -> None:
    about = "time and bandwidth of one operation, commit included"
    text = "Time and bandwidth of one operation, commit included." + NAMESPACE
    bench = _add(benches, "all_reduce", _all_reduce, about, text)
    arguments.several_peers(bench, "2")
    arguments.sizes(bench, "1K,1M,64M,256M")
    arguments.dtype(bench)
    arguments.against(bench)
    arguments.path(bench)
    bench.add_argument("--in-place", action="store_true", help="results over inputs (the default)")
    bench.add_argument("--out-of-place", action="store_true", help="a row for results elsewhere")
    bench.add_argument("--secret", action="store_true", help="a row for a run with a secret, with its cost")
    arguments.repeats(bench)


def _all_reduce(args: argparse.Namespace) -> Iterator[Row]:
    ways = [OURS_OUT] if args.out_of_place else []
    if args.in_place or not ways:
        ways.insert(0, OURS)
    if args.secret:
        ways = [OURS, *(way for way in ways if way != OURS), OURS_SEALED]
    for group in _groups(args):
        yield from all_reduce.measure(all_reduce.Options(args.sizes, group, args.dtype, ways, args.repeats))


def _add_latency(benches: Any) -> None:
    about = "small operations, the exchange alone and with the commit"
    bench = _add(benches, "latency", _latency, about, f"{about.capitalize()}.{NAMESPACE}")
    arguments.several_peers(bench, "2")
    arguments.sizes(bench, "1K,64K")
    arguments.dtype(bench)
    arguments.against(bench)
    arguments.path(bench)
    arguments.count(bench, "--repeats", latency.REPEATS, "operations per size")


def _latency(args: argparse.Namespace) -> Iterator[Row]:
    for group in _groups(args):
        yield from latency.measure(latency.Options(args.sizes, group, args.dtype, args.repeats))


def _add_recorder(benches: Any) -> None:
    bench = _add(benches, "recorder", _recorder, "operations with and without a record of events, in turns")
    arguments.several_peers(bench, "2")
    arguments.sizes(bench, "1K,64K,16M")
    arguments.path(bench)
    arguments.repeats(bench)


def _recorder(args: argparse.Namespace) -> Iterator[Row]:
    for group in _groups(args):
        yield from recorder.measure(recorder.Options(args.sizes, group, args.repeats))


def _add_torch(benches: Any) -> None:
    about = "the backend of torch.distributed, beside the core's own time and gloo's"
    bench = _add(benches, "torch", _torch, about)
    arguments.several_peers(bench, "2")
    arguments.sizes(bench, "4,25M")
    arguments.path(bench)
    arguments.security(bench)
    bench.set_defaults(against="gloo")
    arguments.repeats(bench)


def _torch(args: argparse.Namespace) -> Iterator[Row]:
    for group in _groups(args):
        yield from backend.measure(backend.Options(args.sizes, group, args.repeats))


def _add_concurrent(benches: Any) -> None:
    bench = _add(benches, "concurrent", _concurrent, "several operations at once, against one of all bytes")
    arguments.several_peers(bench, "2,4")
    arguments.sizes(bench, "32M", "of each operation")
    arguments.count(bench, "--count", 8, "operations at once")
    arguments.path(bench)
    arguments.repeats(bench)


def _concurrent(args: argparse.Namespace) -> Iterator[Row]:
    for group in _groups(args):
        yield from concurrent.measure(concurrent.Options(args.sizes, group, args.count, args.repeats))


# ---- quantized, kernels ------------------------------------------------------------------------------------


def _add_quantized(benches: Any) -> None:
    text = (
        "Averages in few bits, beside plain float32 in the same run: time, bytes, errors and their bounds; "
        "then the speed of the codec on one core."
    )
    bench = _add(benches, "quantized", _quantized, "averages in few bits, against plain float32", text)
    arguments.several_peers(bench, "4")
    arguments.sizes(bench, "64M")
    bench.add_argument(
        "--kinds", type=arguments.names(tuple(KINDS)), default=list(KINDS), metavar="LIST",
        help=f"some of {', '.join(KINDS)} (default: all)",
    )  # fmt: skip
    bench.add_argument(
        "--codec-sizes", type=parsed(parse_tensors), default="256K,64M", metavar="LIST",
        help="of what the codec alone works on (default: 256K, a chunk, and 64M, a tensor)",
    )  # fmt: skip
    arguments.path(bench)
    arguments.repeats(bench)


def _quantized(args: argparse.Namespace) -> Iterator[Row]:
    for group in _groups(args):
        yield from quantized.measure(quantized.Options(args.sizes, group, args.kinds, args.repeats))
    yield from codec.measure(args.kinds, args.codec_sizes)


def _add_kernels(benches: Any) -> None:
    bench = _add(benches, "kernels", _kernels, "reduction on one core, against memcpy and numpy")
    arguments.sizes(bench, "256K,64M", "of one operand")
    for flag, known in (("--dtype", tuple(DTYPE_CODES)), ("--op", kernels.REDUCTIONS)):
        bench.add_argument(
            flag, type=arguments.names(known), default=list(known), metavar="LIST",
            help=f"some of {', '.join(known)} (default: all)",
        )  # fmt: skip
    arguments.count(bench, "--repeats", kernels_worker.TRIALS, "trials")


def _kernels(args: argparse.Namespace) -> Iterator[Row]:
    return kernels.measure(kernels.Options(args.sizes, args.dtype, args.op, (), args.repeats))


def _add_erasure(benches: Any) -> None:
    bench = _add(benches, "erasure", _erasure, "Reed-Solomon on memory, against memcpy and other codecs")
    bench.add_argument(
        "--size", type=parsed(parse_size), default="512M", metavar="SIZE", help="of the data (default 512M)"
    )
    bench.add_argument(
        "--code", action="append", type=parsed(_code), metavar="K,M",
        help="blocks of data and parities; again for more (default 8,2)",
    )  # fmt: skip
    bench.add_argument("--threads", default="1", metavar="LIST", help="one run for each (default 1)")
    bench.add_argument(
        "--against", type=arguments.names(erasure_others.OTHERS), default=["memcpy"], metavar="LIST",
        help=f"some of {', '.join(erasure_others.OTHERS)} (default memcpy); what is missing is left out",
    )  # fmt: skip
    bench.add_argument(
        "--level", default="", metavar="NAME", help="an instruction set (default: the fastest)"
    )
    arguments.count(bench, "--repeats", erasure.REPEATS, "trials, of which the best counts")


def _code(text: str) -> tuple[int, int]:
    k, comma, m = text.partition(",")
    if not (comma and k.isdecimal() and m.isdecimal()):
        raise UsageError(f"{text!r} is no code: write 8,2 for 8 blocks of data and 2 parities")
    return int(k), int(m)


def _erasure(args: argparse.Namespace) -> Iterator[Row]:
    threads = [whole(1, 64)(text) for text in args.threads.split(",")]
    codes = args.code or [(8, 2)]
    return erasure.measure(erasure.Options(args.size, codes, threads, args.against, args.level, args.repeats))


# ---- wan ---------------------------------------------------------------------------------------------------


def _add_wan(benches: Any) -> None:
    about = "an all_reduce between peers far apart, in an emulated network"
    text = (
        "Peers and master in network namespaces, linked by the emulator of the project's tree (stress/net): "
        "it takes a checkout, root, /dev/net/tun and g++. Where one of them is missing, it says so and exits "
        f"with {arguments.CANNOT_MEASURE}. bound: seconds that the quickest plan takes on this network, as "
        "bytes at its rate plus hops, without a commit."
    )
    bench = _add(benches, "wan", _wan, about, text)
    bench.add_argument(
        "--goals", action="store_true", help="the networks with promises, instead of one described here"
    )
    arguments.peers(bench)
    arguments.sizes(bench, "64K,64M")
    arguments.number(bench, "--rtt-ms", 100.0, "between two peers")
    arguments.number(bench, "--rate-mbit", 1000.0, "of IP bytes; 0: no limit")
    bench.add_argument(
        "--rate-of", choices=["peer", "link"], default="peer", help="each peer's access line, or each link"
    )
    arguments.number(bench, "--loss", 0.0, "share of packets")
    arguments.number(bench, "--jitter-ms", 0.0, "more delay per packet and direction, up to so much")
    bench.add_argument("--reorder", action="store_true", help="jitter lets packets overtake")
    arguments.number(bench, "--queue-ms", 50.0, "what a line's queue holds")
    bench.add_argument(
        "--master-rtt-ms", type=float, metavar="MS", help="to the master (default: as between peers)"
    )
    bench.add_argument("--congestion-control", default="auto", metavar="NAME", help="auto, cubic, bbr ...")
    arguments.count(bench, "--repeats", 5, "operations per size, after one that is told apart")
    bench.add_argument("--seed", type=int, default=1, metavar="N", help="of what is lost (default 1)")


def _wan(args: argparse.Namespace) -> Iterator[Row]:
    if args.goals:
        return wan_goals.measure(args.repeats, args.congestion_control)
    known = wan_row.Options.__dataclass_fields__
    return wan.measure(
        wan_row.Options(**{name: getattr(args, name) for name in known if hasattr(args, name)})
    )


def _add_ckpt(benches: Any) -> None:
    bench = _add(
        benches,
        "ckpt",
        _ckpt,
        "what checkpoints cost a training",
        "Saves a GPT-like float32 state while a small model trains beside it, then loads it from the disk "
        "with an empty page cache. Each method in a process of its own, others' in their best mode.",
    )
    bench.add_argument(
        "--size", type=parsed(parse_tensors), default="1G", metavar="LIST", help="of the state (default 1G)"
    )
    bench.add_argument(
        "--against",
        default="",
        metavar="LIST",
        help="of dcp, torch_checkpointing, torch, safetensors; measured in the same run",
    )
    bench.add_argument(
        "--threads", default="1", metavar="LIST", help="cores that the training uses (default 1)"
    )
    arguments.count(bench, "--repeats", 3, "saves and loads per method, after a first one")
    bench.add_argument(
        "--folder", metavar="DIR", help="on the disk to be measured (default: the temporary one)"
    )
    bench.add_argument(
        "--saves", type=whole(1), metavar="N",
        help="instead: the memory that N saves one after the other take, with two sizes of the pool",
    )  # fmt: skip


def _ckpt(args: argparse.Namespace) -> Iterable[Row]:
    from ..bench.ckpt import growth
    from ..bench.ckpt.measure import measure

    if args.saves is not None:
        return growth.measure(args.size, args.saves, args.folder)
    threads = [whole(1, 64)(text) for text in args.threads.split(",")]
    against = [name for name in args.against.split(",") if name]
    return measure(args.size, against, threads, args.repeats, args.folder)


def _add_reshard(benches: Any) -> None:
    text = (
        "Loads what 4, 2 and 1 ranks have saved with 2, 4 and 3, and what as many have saved, from the disk."
    )
    bench = _add(benches, "reshard", _reshard, "loads into another number of ranks", text)
    about = "of the state (default 512M)"
    bench.add_argument("--size", type=parsed(parse_tensors), default="512M", metavar="LIST", help=about)
    arguments.count(bench, "--repeats", 3, "loads of each kind")
    bench.add_argument(
        "--folder", metavar="DIR", help="on the disk to be measured (default: the temporary one)"
    )


def _reshard(args: argparse.Namespace) -> Iterable[Row]:
    from ..bench import reshard

    return reshard.measure(args.size, args.repeats, args.folder)
