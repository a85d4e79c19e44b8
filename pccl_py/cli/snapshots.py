"""`python -m pccl_py snapshots`: the keepers of this user on this host, and what they hold."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import PcclError, SnapshotError
from ..snapshot import ask
from ..snapshot.messages import Summary, Trainer
from .tables import columns, size


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "snapshots",
        help="list and free snapshots in memory",
        description="Keepers hold the newest snapshot of each trainer of a run in memory of this host, "
        "and end by themselves once their trainers are gone for long.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    ls = actions.add_parser("ls", help="list keepers, their trainers and steps")
    free = actions.add_parser("free", help="free what the keepers of a run hold, and end them")
    free.add_argument("run", metavar="RUN", help="its name")
    free.add_argument("--keeper", help="of several on this host, this one")
    free.add_argument("--force", action="store_true", help="also while trainers are attached")
    for action in (ls, free):
        action.add_argument("--json", action="store_true", help="objects of JSON, one per line")


def run(args: argparse.Namespace) -> int:
    return _ls(args.json) if args.action == "ls" else _free(args)


def _found() -> list[tuple[Path, Summary]]:
    """Those that answer; of others a line on stderr."""
    found = []
    for path in ask.sockets():
        try:
            summary = ask.summary(path)
        except (PcclError, OSError) as error:
            print(f"pccl_py snapshots: {path}: {error}", file=sys.stderr)
            continue
        if summary is not None:
            found.append((path, summary))
    return found


def _ls(as_json: bool) -> int:
    found = _found()
    if as_json:
        for path, keeper in found:
            print(json.dumps({"socket": str(path), **dataclasses.asdict(keeper)}))
        return 0
    if not found:
        print("no keeper of this user is here")
        return 0
    rows = [["run", "keeper", "pid", "trainer", "step", "age", "size", "memory", "attached"]]
    for _, keeper in found:
        head = [keeper.run, keeper.keeper, str(keeper.pid)]
        for trainer in keeper.trainers:
            rows.append([*head, *_cells(trainer)])
        if not keeper.trainers:
            rows.append([*head, "none", "", "", "", "", ""])
    print(columns(rows, right=(2, 4, 5, 6, 7)))
    return 0


def _cells(trainer: Trainer) -> list[str]:
    step, age = ("none", "") if trainer.step < 0 else (str(trainer.step), f"{trainer.age_s:.0f} s")
    attached = f"process {trainer.pid}" if trainer.pid else f"gone for {trainer.gone_s:.0f} s"
    return [trainer.trainer, step, age, size(trainer.bytes), size(trainer.memory), attached]


def _free(args: argparse.Namespace) -> int:
    mine = [
        (path, keeper)
        for path, keeper in _found()
        if keeper.run == args.run and args.keeper in (None, keeper.keeper)
    ]
    if not mine:
        raise SnapshotError(
            f"no keeper of run {args.run!r} is here: `python -m pccl_py snapshots ls` lists all"
        )
    for path, keeper in mine:
        freed = ask.free(path, force=args.force)
        if args.json:
            print(json.dumps({"run": keeper.run, "keeper": keeper.keeper, "pid": keeper.pid, "bytes": freed}))
        else:
            print(
                f"keeper {keeper.keeper!r} of run {keeper.run!r} (process {keeper.pid}) freed {size(freed)}"
            )
    return 0
