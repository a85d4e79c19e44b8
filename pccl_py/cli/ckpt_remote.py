"""`ckpt ls`, `inspect`, `verify` and `gc` of a URL. Needs the extra `remote`, no compiled core."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from ..checkpoint import manifest_body
from ..checkpoint.download import Downloader
from ..checkpoint.lease import OWNER
from ..checkpoint.manifest import Manifest
from ..checkpoint.patience import Patience
from ..checkpoint.remote_level import RemoteLevel, RemoteStep
from ..checkpoint.remote_store import PACKED
from ..checkpoint.remote_url import open_store
from ..checkpoint.remote_verify import verify_remote
from ..errors import BusyError, DamagedError, NoCheckpointError, UsageError
from ..values import names
from .ckpt_show import tensor_table
from .progress import Progress
from .tables import columns, moment, size

GIVE_UP_S = 30.0


def run(args: argparse.Namespace) -> int:
    actions = {"ls": ls, "inspect": inspect, "verify": verify, "gc": gc}
    if args.action not in actions:
        raise UsageError(f"ckpt {args.action} works on folders: load the step of {args.path} first")
    options = dict(_option(text) for text in args.option)
    keep = (args.keep, args.keep_every) if args.action == "gc" else (None, None)
    level = RemoteLevel(open_store(args.path, options), *keep)
    return _patience().call(f"use {args.path}", lambda: actions[args.action](level, args))


def _patience() -> Patience:
    return Patience(threading.Event(), lambda text, helps: None, GIVE_UP_S)


def _option(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found:
        raise UsageError(f"--option {text}: give it as KEY=VALUE")
    return key, value


def ls(level: RemoteLevel, args: argparse.Namespace) -> int:
    rows = [("step", "time (UTC)", "ranks", "tensors", "size", "stored", "state")]
    for step in level.scan().values():
        about = _summary(level, step)
        if args.json:
            print(json.dumps(about))
            continue
        held = ("?", "?", "?", "?")
        if "world" in about:
            held = (moment(about["time"]), str(about["world"]), str(about["tensors"]), size(about["bytes"]))
        state = "complete" if about["complete"] else "; ".join(about["faults"])
        rows.append((str(step.step), *held, size(about["stored"]), state))
    if not args.json:
        print(columns(rows, right=(0, 2, 3, 4, 5)) if len(rows) > 1 else f"no step at {level.store.url}")
    return 0


def _summary(level: RemoteLevel, step: RemoteStep) -> dict[str, Any]:
    """A step by its manifest and the sizes of its objects."""
    known: dict[str, Any] = {"step": step.step, "stored": sum(step.objects.values())}
    if not step.exists:
        return known | {"complete": False, "faults": ["no manifest: being uploaded, or left by a crash"]}
    try:
        held = level.manifest(step)
    except DamagedError as error:
        return known | {"complete": False, "faults": [str(error)]}
    faults = [
        f"{shard.file} is missing or cut off"
        for shard in held.shards
        if step.objects.get(shard.file) != shard.bytes and shard.file + PACKED not in step.objects
    ]
    known |= {"time": held.time, "world": held.world, "tensors": len(held.tensors), "notes": dict(held.notes)}
    bytes_ = sum(shard.bytes for shard in held.shards)
    return known | {"bytes": bytes_, "shards": len(held.shards), "complete": not faults, "faults": faults}


def _meant(level: RemoteLevel, step: int | None) -> RemoteStep:
    if step is None:
        step = max(level.steps(), default=None)
        if step is None:
            raise NoCheckpointError(f"no step at {level.store.url}")
    return level.look(step)


def inspect(level: RemoteLevel, args: argparse.Namespace) -> int:
    step = _meant(level, args.step)
    held: Manifest = level.manifest(step)
    if args.json:
        print(json.dumps(_summary(level, step) | manifest_body.write(held)))
        return 0
    print(f"step {held.step} of {moment(held.time)} UTC by {held.world} ranks")
    print(tensor_table(held))
    print(f"\nparts: {', '.join(names.shown(part) for part in held.objects) or 'none'}")
    return 0


def verify(level: RemoteLevel, args: argparse.Namespace) -> int:
    steps = level.steps() if args.step is None else [args.step]
    if not steps:
        raise NoCheckpointError(f"no step at {level.store.url}")
    sound = True
    for step in steps:
        report = verify_remote(level, Downloader(level, _patience()), step, _progress(level, step))
        sound &= report.sound
        if args.json:
            known = {
                "path": str(report.path),
                "step": step,
                "sound": report.sound,
                "bytes": report.bytes_read,
            }
            print(json.dumps(known | {"damages": [asdict(damage) for damage in report.damages]}))
        elif report.sound:
            print(f"step {step}: sound, {size(report.bytes_read)} read")
        else:
            print("\n  ".join([f"step {step}: DAMAGED", *map(str, report.damages)]))
    return 0 if sound else 1


def _progress(level: RemoteLevel, step: int) -> Callable[[int], None]:
    with suppress(DamagedError):  # it is reported
        held = level.manifest(level.look(step))
        return Progress(f"step {step}", sum(shard.bytes for shard in held.shards)).add
    return Progress(f"step {step}", 0).add


def gc(level: RemoteLevel, args: argparse.Namespace) -> int:
    """Not beside a run: its owner object is there while it lives, and after it was killed."""
    if level.store.read_tagged(OWNER) is not None and not args.force:
        raise BusyError(
            f"{level.store.url} belongs to a run (object {OWNER}): end it; if it was killed, pass --force"
        )
    newest = max(level.steps(), default=None)
    gone = [] if newest is None else level.retire(newest)
    swept = level.sweep()
    kept = level.steps()
    if args.json:
        print(json.dumps({"removed": gone, "kept": kept, "leftovers": swept}))
    else:
        shown = [", ".join(map(str, steps)) or "none" for steps in (gone, kept)]
        print(f"steps removed: {shown[0]}; kept: {shown[1]}")
    return 0
