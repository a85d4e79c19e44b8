"""`ckpt import` and `ckpt export`."""

from __future__ import annotations

import argparse
import json

from ..checkpoint import folder, manifest_body
from ..checkpoint.export_step import to_dcp, to_safetensors, to_torch
from ..checkpoint.import_sources import read_any
from ..checkpoint.manifest import Manifest, Tensor
from ..checkpoint.plain_writer import bytes_of, write_step
from ..errors import NoCheckpointError, UsageError
from ..values import names
from .ckpt_show import locate
from .progress import Progress
from .tables import size


def import_(args: argparse.Namespace) -> int:
    if not args.source.exists():
        raise NoCheckpointError(f"{args.source} does not exist")
    try:
        found = read_any(args.source, args.part, args.skip)
    except ModuleNotFoundError as error:
        raise _needs_torch(error, "reading this") from None
    with folder.hold(args.path):
        notes = {"imported from": str(args.source)}
        progress = Progress(f"step {args.step}", sum(map(bytes_of, found.sources)))
        made = write_step(
            args.path, args.step, found.sources, objects=found.objects, notes=notes, progress=progress.add
        )
    held = manifest_body.tensors_bytes(made.tensors)
    if args.json:
        about = {"step": made.step, "kind": found.kind, "tensors": len(made.tensors), "bytes": held}
        print(json.dumps(about | {"parts": list(made.objects)}))
    else:
        what = f"{len(made.tensors)} tensors, {size(held)}, parts {', '.join(made.objects) or 'none'}"
        print(f"step {made.step} of {found.kind}: {what}")
    return 0


def export(args: argparse.Namespace) -> int:
    step = locate(args.path, args.step)
    if step.manifest is None or not step.complete:
        raise NoCheckpointError(f"step {step.step} is not complete: {(*step.faults, *step.missing)[0]}")
    write = {"safetensors": to_safetensors, "torch": to_torch, "dcp": to_dcp}[args.to]
    progress = Progress(f"step {step.step}", manifest_body.tensors_bytes(_chosen(step.manifest, args.part)))
    try:
        written = write(step.path, step.manifest, args.target, args.part, progress.add)
    except ModuleNotFoundError as error:
        raise _needs_torch(error, f"--to {args.to}") from None
    if args.json:
        print(json.dumps({"step": step.step, "to": args.to, "target": str(args.target), "bytes": written}))
    else:
        print(f"step {step.step} as {args.to} in {args.target}: {size(written)}")
    return 0


def _chosen(made: Manifest, part: str | None) -> dict[str, Tensor]:
    return {name: one for name, one in made.tensors.items() if part in (None, names.split(name)[0])}


def _needs_torch(error: ModuleNotFoundError, what: str) -> Exception:
    return UsageError(f"{what} needs torch: pip install 'pccl-py[torch]'") if error.name == "torch" else error
