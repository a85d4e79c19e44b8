"""`ckpt ls`, `ckpt inspect` and `ckpt format`."""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from typing import Any

from ..checkpoint import folder, manifest_body, safetensors_header
from ..checkpoint import format as page
from ..checkpoint.folder import StepFolder
from ..checkpoint.manifest import Manifest
from ..checkpoint.safetensors_file import read_header
from ..errors import NoCheckpointError
from ..values import dtypes, names
from .tables import columns, moment, size


def locate(path: Path, step: int | None = None) -> StepFolder:
    """The step that a command means: that of a step's folder, else one of a folder of steps.

    Raises NoCheckpointError.
    """
    if not path.exists():
        raise NoCheckpointError(f"{path} does not exist")
    path = path.resolve()  # what the user names may be a link
    if step is None and (found := folder.read_step(path)) is not None:
        return found
    return folder.find(path, step)


def ls(args: argparse.Namespace) -> int:
    if not args.path.is_dir():
        raise NoCheckpointError(f"{args.path} is no folder")
    found = folder.scan(args.path)
    if args.json:
        for step in found.steps:
            print(json.dumps(_summary(step)))
        return 0
    rows = [("step", "time (UTC)", "ranks", "tensors", "size", "state")]
    for step in found.steps:
        about = _summary(step)
        held = step.manifest
        cells = ("?", "?", "?", "?")
        if held is not None:
            cells = (moment(held.time), str(held.world), str(len(held.tensors)), size(about["bytes"]))
        rows.append((str(step.step), *cells, _state(step)))
    print(columns(rows, right=(0, 2, 3, 4)) if found.steps else f"no step in {args.path}")
    if found.leftovers:
        what = "leftovers, of retired steps or of saves that did not end: the next saver removes them"
        print(f"\n{len(found.leftovers)} {what}")
    return 0


def _summary(step: StepFolder) -> dict[str, Any]:
    held = step.manifest
    known: dict[str, Any] = {"path": str(step.path), "step": step.step, "complete": step.complete}
    if held is not None:
        known |= {
            "time": held.time,
            "world": held.world,
            "tensors": len(held.tensors),
            "shards": len(held.shards),
        }
        known |= {"bytes": sum(shard.bytes for shard in held.shards), "notes": dict(held.notes)}
    return known | {"missing": list(step.missing), "faults": list(step.faults)}


def _state(step: StepFolder) -> str:
    if step.complete:
        return "complete"
    if step.faults:
        return f"damaged: {step.faults[0]}"
    return f"{len(step.missing)} shard files are not here, e.g. {step.missing[0]}"


def inspect(args: argparse.Namespace) -> int:
    if args.path.is_file():
        return _inspect_file(args.path, args.json)
    step = locate(args.path, args.step)
    if step.manifest is None:
        raise NoCheckpointError(f"step {step.step} is damaged: {step.faults[0]}")
    if args.json:
        print(json.dumps(_summary(step) | manifest_body.write(step.manifest)))
        return 0
    held = step.manifest
    print(f"step {held.step} of {moment(held.time)} UTC by {held.world} ranks: {_state(step)}")
    for key, note in held.notes.items():
        print(f"{names.shown(key)}: {names.shown(note)}")
    print(tensor_table(held))
    print(f"\n{len(held.tensors)} tensors, {size(manifest_body.tensors_bytes(held.tensors))}")
    print(f"parts: {', '.join(names.shown(part) for part in held.objects) or 'none'}")
    for rank, parts in sorted(held.private.items()):
        print(f"of rank {rank} alone: {', '.join(names.shown(part) for part in parts)}")
    return 0


def _inspect_file(path: Path, as_json: bool) -> int:
    """A safetensors file, whoever wrote it."""
    if zipfile.is_zipfile(path):
        raise NoCheckpointError(
            f"{path} is no safetensors file but a zip file, as torch.save writes: make a step of it by import"
        )
    header: safetensors_header.Header = read_header(path)
    if as_json:
        tensors = {
            name: {
                "dtype": entry.dtype,
                "shape": list(entry.shape),
                "offset": entry.begin,
                "bytes": entry.end - entry.begin,
            }
            for name, entry in header.tensors.items()
        }
        about = {
            "path": str(path),
            "bytes": header.file_bytes,
            "metadata": header.metadata,
            "tensors": tensors,
        }
        print(json.dumps(about))
        return 0
    rows = [("tensor", "dtype", "shape", "size")]
    for name, entry in header.tensors.items():
        shape = "x".join(map(str, entry.shape)) or "scalar"
        rows.append((names.shown(name)[1:-1], entry.dtype, shape, size(entry.end - entry.begin)))
    print(columns(rows, right=(3,)))
    print(
        f"\n{len(header.tensors)} tensors in {size(header.file_bytes)}; a safetensors file without a manifest"
    )
    for key, value in header.metadata.items():
        print(f"{names.shown(key)}: {names.shown(value)}")
    return 0


def show_format(args: argparse.Namespace) -> int:
    print(page.text(), end="")
    return 0


def tensor_table(held: Manifest) -> str:
    """A line for each tensor of a step."""
    rows = [("tensor", "dtype", "shape", "pieces", "size")]
    for name, tensor in held.tensors.items():
        total = sum(piece.box.size for piece in tensor.pieces) * dtypes.itemsize(tensor.dtype)
        shape = "x".join(map(str, tensor.shape)) or "scalar"
        rows.append((names.shown(name)[1:-1], tensor.dtype, shape, str(len(tensor.pieces)), size(total)))
    return columns(rows, right=(3, 4))
