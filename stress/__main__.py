"""`python -m stress list|run|churn|recovery|pause|checkpoint|snapshots|net`: see --help of each.

Exit status 0: no fault; 1: some; 77: this machine lacks what the scenario needs.
"""

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

from pccl_py.bench.units import parse_tensor
from pccl_py.cli.numbers import above_zero, parsed, whole

from . import clock
from .checkpoint import CheckpointPlan, run_checkpoint
from .checkpoint_savers import WAYS
from .churn import ChurnPlan, run_churn
from .churn_peer import SABOTAGE
from .net import NoEmulator
from .net.build import program
from .oracles import PEERS_MAX
from .page import write_page
from .pause import PausePlan, run_pause
from .recovery import RecoveryPlan, run_recovery
from .report import Report
from .scenarios import SCENARIOS, listed, plan_of
from .small_disk import NoDisk
from .snapshot_strikes import PHASES_PARITY, PHASES_PEERS
from .snapshots import SnapshotsPlan, run_snapshots
from .windows import Limits

PLACES_MAX = PEERS_MAX - 1  # churn fills one more now and then


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
        "--hang-seconds", type=above_zero, default=15.0, metavar="S", help="no progress for so long is a hang"
    )

    commands.add_parser("list", help="what `run` can do to a run, and what it checks")
    add_run(commands.add_parser("run", parents=[common], help="one scenario of the list, with a report"))

    churn = commands.add_parser("churn", parents=[common], help="kill, stop, leave and join at random")
    churn.add_argument("--seconds", type=above_zero, default=60.0)
    churn.add_argument("--peers", type=whole(2, PLACES_MAX), default=4)
    churn.add_argument("--kills", type=whole(0), help="SIGKILLs in all (default: two per second)")
    churn.add_argument("--groups", type=whole(1), default=1, help="groups that the peers are divided into")
    churn.add_argument(
        "--islands", type=parsed(grid), metavar="RxC", help="R islands of C ranks instead of peers"
    )
    churn.add_argument(
        "--elements", type=parsed(bounds), default="1-262144", metavar="MIN-MAX", help="of one tensor"
    )
    churn.add_argument("--in-flight", type=whole(1), default=6, help="all-reduces at the same time, at most")
    churn.add_argument(
        "--transport", choices=("auto", "tcp", "shm", "cma", "mixed"), default="auto",
        help="between the peers; mixed: each peer another (default auto)",
    )  # fmt: skip
    churn.add_argument("--sabotage", choices=tuple(SABOTAGE), help=argparse.SUPPRESS)

    recovery = commands.add_parser(
        "recovery", parents=[common], help="from each kill to the survivors' next result"
    )
    recovery.add_argument("--kills", type=whole(1), default=100)
    recovery.add_argument("--peers", type=whole(2, PEERS_MAX), default=3)
    recovery.add_argument(
        "--bytes", type=parsed(parse_tensor), default=4 << 20, help="reduced at a time; K, M and G are known"
    )
    recovery.add_argument("--forked-workers", type=whole(0), nargs="?", const=2, default=0, metavar="N",
                          help="each peer has forked N processes (2) that outlive it")  # fmt: skip

    pause = commands.add_parser("pause", parents=[common], help="a peer that is stopped is evicted")
    pause.add_argument("--rounds", type=whole(1), default=3)
    pause.add_argument("--peers", type=whole(2, PEERS_MAX), default=3)
    pause.add_argument("--bytes", type=parsed(parse_tensor), default=4 << 20)

    checkpoint = commands.add_parser("checkpoint", parents=[common], help="kill savers of checkpoints")
    checkpoint.add_argument("--kills", type=whole(1), default=100)
    checkpoint.add_argument(
        "--way", choices=sorted(WAYS), default="save",
        help="a Checkpointer; with a remote and lost folders; dcp.save through our door; `ckpt import`, "
        "`reshard` and `export` (default save)",
    )  # fmt: skip
    checkpoint.add_argument(
        "--sabotage", choices=("durable", "uploaded", "value", "hang"), help=argparse.SUPPRESS
    )

    snapshots = commands.add_parser(
        "snapshots", parents=[common], help="kill and stop trainers and their keepers"
    )
    snapshots.add_argument("--patterns", type=whole(1), default=20, help="of who is struck, when and how")
    snapshots.add_argument("--peers", type=whole(2, 8), default=4)
    snapshots.add_argument("--parity", type=whole(1, 7), default=1)
    snapshots.add_argument(
        "--phases", action="store_true", help="each phase once instead, with each of those struck in it"
    )
    snapshots.add_argument("--sabotage", choices=("value",), help=argparse.SUPPRESS)

    net = commands.add_parser("net", help="the emulated network of tests and of `pccl_py bench wan`")
    net.add_argument("what", choices=["build"], help="compile its program, which its first use does else")
    return top


def add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", choices=tuple(SCENARIOS), metavar="SCENARIO", help=", ".join(SCENARIOS))
    command.add_argument("--minutes", type=above_zero, default=1.0)
    command.add_argument("--peers", type=whole(3, 8), default=4)
    command.add_argument("--report", type=Path, metavar="FILE.html", help="a page with plots, in one file")
    command.add_argument("--sabotage", choices=tuple(SABOTAGE), help=argparse.SUPPRESS)


def grid(text: str) -> tuple[int, int]:
    """ "3x2": islands, and ranks of each."""
    islands, _, ranks = text.lower().partition("x")
    if not islands.isdecimal() or not ranks.isdecimal() or int(ranks) < 1:
        raise ValueError(f"{text!r}: it is RxC, like 3x2 for 3 islands of 2 ranks")
    if not 2 <= int(islands) <= PLACES_MAX:
        raise ValueError(f"{text!r}: it has 2 to {PLACES_MAX} islands")
    return int(islands), int(ranks)


def bounds(text: str) -> tuple[int, int]:
    """ "1-100": smallest and largest."""
    low, _, high = text.partition("-")
    if not low.isdecimal() or not (high or low).isdecimal() or not 1 <= int(low) <= int(high or low):
        raise ValueError(f"{text!r}: it is MIN-MAX, like 1-262144, with 1 <= MIN <= MAX")
    return int(low), int(high or low)


def churn_plan(args: argparse.Namespace) -> ChurnPlan:
    limits = Limits(args.in_flight, *args.elements)
    peers, ranks = args.peers, 1
    if args.islands:
        islands, ranks = args.islands
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
        args.transport,
    )


def main(arguments: list[str]) -> int:
    args = parser().parse_args(arguments)
    if args.scenario == "net":
        return build_net()
    if args.scenario == "list":
        print(listed())
        return 0
    if args.seed is None:
        args.seed = random.SystemRandom().randrange(1 << 31)
        arguments = [*arguments, "--seed", str(args.seed)]
    command = shlex.join(["python", "-m", "stress", *arguments])
    try:
        if args.scenario == "run" and SCENARIOS[args.name].clocks and not clock.ready():
            clock.start_again(arguments)
        report = run(args, command)
    except (NoEmulator, NoDisk, clock.NoClocks) as error:
        print(f"stress: missing: {error}", file=sys.stderr)
        return 77
    finally:
        clock.forget()
    if getattr(args, "report", None):
        write_page(args.report, report)
    print(report.as_json() if args.json else report.as_text())
    return 0 if report.faultless and report.operations else 1


def build_net() -> int:
    try:
        print(program())
    except NoEmulator as error:
        print(f"stress net: missing: {error}", file=sys.stderr)
        return 77
    return 0


def run(args: argparse.Namespace, command: str) -> Report:
    report = Report(args.scenario, args.seed, command, getattr(args, "peers", 1))
    if args.scenario == "run":
        report.scenario = args.name
        seconds, hang_s = args.minutes * 60, args.hang_seconds
        chosen = plan_of(args.name, args.seed, seconds, args.peers, hang_s, args.keep, args.sabotage)
        return run_churn(chosen, report)
    if args.scenario == "checkpoint":
        plan = {"seed": args.seed, "kills": args.kills, "hang_s": args.hang_seconds, "keep": args.keep}
        return run_checkpoint(CheckpointPlan(way=args.way, sabotage=args.sabotage, **plan), report)
    if args.scenario == "snapshots":
        plan = {"seed": args.seed, "patterns": args.patterns, "peers": args.peers, "parity": args.parity}
        plan |= {"hang_s": args.hang_seconds, "keep": args.keep, "sabotage": args.sabotage}
        if args.phases:
            report.peers = plan["peers"] = PHASES_PEERS
            plan["parity"] = PHASES_PARITY
        return run_snapshots(SnapshotsPlan(phases=args.phases, **plan), report)
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
