"""`python -m stress list|run|churn|recovery|pause|checkpoint|snapshots|net`: see --help of each.

Exit status 0: no fault; 1: some; 77: this machine lacks what the scenario needs.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import sys
from typing import Any

# One thread per process: peers are many, cores are few. Before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from . import clock
from .arguments import parser
from .checkpoint import CheckpointPlan, run_checkpoint
from .churn import ChurnPlan, run_churn
from .net import NoEmulator
from .net.build import program
from .page import write_page
from .pause import PausePlan, run_pause
from .recovery import RecoveryPlan, run_recovery
from .report import Report
from .scenarios import SCENARIOS, listed, plan_of
from .small_disk import NoDisk
from .snapshot_strikes import PHASES_PARITY, PHASES_PEERS
from .snapshots import SnapshotsPlan, run_snapshots
from .windows import Limits


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
    args = parser(__doc__).parse_args(arguments)
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
