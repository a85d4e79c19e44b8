"""`ckpt gc` and `ckpt reshard`."""

from __future__ import annotations

import argparse
import json

from ..checkpoint import folder, manifest_body
from ..checkpoint import reshard as resharding
from ..checkpoint.retention import keepers
from ..errors import NoCheckpointError
from .ckpt_show import locate
from .progress import Progress
from .tables import size


def gc(args: argparse.Namespace) -> int:
    """Steps that cannot be read stay: they are for somebody to look at."""
    if not args.path.is_dir():
        raise NoCheckpointError(f"{args.path} is no folder")
    with folder.hold(args.path):
        whole = {step.step: step.path for step in folder.scan(args.path).steps if step.complete}
        stay = keepers(whole, args.keep, args.keep_every)
        gone = [step for step in sorted(whole) if step not in stay]
        for step in gone:
            folder.remove(whole[step])
        swept = folder.sweep(args.path)
    if args.json:
        print(json.dumps({"removed": gone, "kept": sorted(stay), "leftovers": [path.name for path in swept]}))
    else:
        kept = ", ".join(map(str, sorted(stay))) or "none"
        print(f"steps removed: {', '.join(map(str, gone)) or 'none'}; kept: {kept}; leftovers: {len(swept)}")
    return 0


def reshard(args: argparse.Namespace) -> int:
    step = locate(args.path, args.step)
    if step.manifest is None or not step.complete:
        raise NoCheckpointError(f"step {step.step} is not complete: {(*step.faults, *step.missing)[0]}")
    held = manifest_body.tensors_bytes(step.manifest.tensors)
    progress = Progress(f"step {step.step}", held)
    with folder.hold(args.target):
        made = resharding.reshard(step.path, step.manifest, args.target, args.shards, progress.add)
    if args.json:
        print(json.dumps({"step": made.step, "shards": len(made.shards), "bytes": held}))
    else:
        print(f"step {made.step} in {len(made.shards)} shards: {size(held)}")
    return 0
