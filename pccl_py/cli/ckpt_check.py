"""`ckpt verify` and `ckpt diff`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from ..checkpoint import folder, manifest_body
from ..checkpoint.diff import Change, compare
from ..checkpoint.folder import StepFolder
from ..checkpoint.manifest import Manifest
from ..checkpoint.verify import Report, verify_step
from ..errors import DamagedError, NoCheckpointError
from ..values import names
from .ckpt_show import locate
from .progress import Progress
from .tables import size


def verify(args: argparse.Namespace) -> int:
    steps = _meant(args.path, args.step)
    sound = True
    for step in steps:
        total = sum(shard.bytes for shard in step.manifest.shards) if step.manifest else 0
        report = verify_step(step.path, Progress(f"step {step.step}", total).add)
        sound &= report.sound
        _print_report(report, args.json)
    return 0 if sound else 1


def _meant(path: Path, step: int | None) -> list[StepFolder]:
    if step is None and path.exists() and folder.read_step(path) is None:
        if found := list(folder.scan(path).steps):
            return found
        raise NoCheckpointError(f"no step in {path}")
    return [locate(path, step)]


def _print_report(report: Report, as_json: bool) -> None:
    if as_json:
        known = {"path": str(report.path), "step": report.step, "sound": report.sound}
        print(
            json.dumps(known | {"bytes": report.bytes_read, "damages": [asdict(d) for d in report.damages]})
        )
    elif report.sound:
        print(f"step {report.step}: sound, {size(report.bytes_read)} read")
    else:
        print(f"step {report.step}: DAMAGED")
        for damage in report.damages:
            print(f"  {damage}")


def diff(args: argparse.Namespace) -> int:
    first, second = locate(args.first), locate(args.second)
    made, other = _held(first), _held(second)
    every = {**other.tensors, **made.tensors}
    progress = Progress("compared", manifest_body.tensors_bytes(every))
    difference = compare(first.path, made, second.path, other, progress.add)
    if args.json:
        about = {"same": difference.same, "same_tensors": difference.same_tensors}
        print(json.dumps(about | {"changes": [asdict(change) for change in difference.changes]}))
    else:
        for change in difference.changes:
            print(_line(change))
        print(f"{difference.same_tensors} tensors are the same; {len(difference.changes)} differences")
    return 0 if difference.same else 1


def _held(step: StepFolder) -> Manifest:
    if step.manifest is None:
        raise DamagedError(step.faults[0])
    return step.manifest


def _line(change: Change) -> str:
    sign = {"removed": "-", "added": "+"}.get(change.what, "~")
    text = f"{sign} {change.kind} {names.shown(change.name)}"
    if change.what in ("removed", "added"):
        return f"{text}: {change.before or change.after}"
    return f"{text}: other {change.what}" + (f", {change.before} -> {change.after}" if change.before else "")
