"""`python -m stress churn|recovery|pause|net`: see --help of each. Exit status 0: no fault."""

from __future__ import annotations

import argparse
import os
import random
import shlex
import sys
from pathlib import Path
from typing import Any

# One thread per process: peers are many, cores are few. Before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from .churn import ChurnPlan, run_churn
from .net import NoEmulator
from .net.build import program
from .pause import PausePlan, run_pause
from .recovery import RecoveryPlan, run_recovery
from .report import Report
from .windows import Limits


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m stress", description=__doc__)
    commands = top.add_subparsers(dest="scenario", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--seed", type=int, help="replays the schedule of a run (default: a new one)")
    common.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    common.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="leave all logs there, tell everything that happened"
    )
    common.add_argument(
        "--hang-seconds", type=float, default=15.0, metavar="S", help="no progress for so long is a hang"
    )

    churn = commands.add_parser("churn", parents=[common], help="kill, stop, leave and join at random")
    churn.add_argument("--seconds", type=float, default=60.0)
    churn.add_argument("--peers", type=int, default=4)
    churn.add_argument("--kills", type=int, help="SIGKILLs in all (default: two per second)")
    churn.add_argument("--groups", type=int, default=1, help="groups that the peers are divided into")
    churn.add_argument("--islands", metavar="RxC", help="R islands of C ranks instead of peers")
    churn.add_argument("--elements", default="1-262144", metavar="MIN-MAX", help="of one tensor")
    churn.add_argument("--in-flight", type=int, default=6, help="all-reduces at the same time, at most")
    churn.add_argument("--sabotage", choices=("wrong", "death", "hang"), help=argparse.SUPPRESS)

    recovery = commands.add_parser(
        "recovery", parents=[common], help="from each kill to the survivors' next result"
    )
    recovery.add_argument("--kills", type=int, default=100)
    recovery.add_argument("--peers", type=int, default=3)
    recovery.add_argument(
        "--bytes", type=size, default=4 << 20, help="reduced at a time; K, M and G are known"
    )
    recovery.add_argument("--forked-workers", type=int, nargs="?", const=2, default=0, metavar="N",
                          help="each peer has forked N processes (2) that outlive it")  # fmt: skip

    pause = commands.add_parser("pause", parents=[common], help="a peer that is stopped is evicted")
    pause.add_argument("--rounds", type=int, default=3)
    pause.add_argument("--peers", type=int, default=3)
    pause.add_argument("--bytes", type=size, default=4 << 20)

    net = commands.add_parser("net", help="the emulated network of tests and of `pccl_py bench wan`")
    net.add_argument("what", choices=["build"], help="compile its program, which its first use does else")
    return top


def size(text: str) -> int:
    """ "4M" in bytes."""
    factor = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper(), 1)
    return int(text[:-1] if factor > 1 else text) * factor


def churn_plan(args: argparse.Namespace) -> ChurnPlan:
    low, _, high = args.elements.partition("-")
    limits = Limits(args.in_flight, int(low), int(high or low))
    peers, ranks = args.peers, 1
    if args.islands:
        islands, ranks = map(int, args.islands.lower().split("x"))
        peers = islands * ranks
    kills = round(args.seconds * 2) if args.kills is None else args.kills
    return ChurnPlan(
        args.seed,
        args.seconds,
        peers,
        kills,
        limits,
        args.groups,
        ranks,
        args.hang_seconds,
        args.keep,
        args.sabotage,
    )


def main(arguments: list[str]) -> int:
    args = parser().parse_args(arguments)
    if args.scenario == "net":
        return build_net()
    if args.seed is None:
        args.seed = random.SystemRandom().randrange(1 << 31)
        arguments = [*arguments, "--seed", str(args.seed)]
    command = shlex.join(["python", "-m", "stress", *arguments])
    report = run(args, command)
    print(report.as_json() if args.json else report.as_text())
    return 0 if report.faultless else 1


def build_net() -> int:
    try:
        print(program())
    except NoEmulator as error:
        print(f"stress net: missing: {error}", file=sys.stderr)
        return 77
    return 0


def run(args: argparse.Namespace, command: str) -> Report:
    report = Report(args.scenario, args.seed, command, args.peers)
    if args.scenario == "churn":
        churn = churn_plan(args)
        report.peers = churn.peers
        return run_churn(churn, report)
    steady: dict[str, Any] = {"seed": args.seed, "peers": args.peers, "size": args.bytes}
    steady |= {"hang_s": args.hang_seconds, "keep": args.keep}
    if args.scenario == "recovery":
        return run_recovery(RecoveryPlan(kills=args.kills, workers=args.forked_workers, **steady), report)
    return run_pause(PausePlan(rounds=args.rounds, **steady), report)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
