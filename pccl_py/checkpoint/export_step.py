"""A step in other formats, with whole tensors: safetensors, torch.save, DCP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import BusyError, CheckpointError, NoCheckpointError, StateError
from ..values import names, tagged
from ..values.dtypes import itemsize
from . import safetensors_header
from .files import PART, explained, sync_folder
from .manifest import Manifest
from .plain_reader import read_tensor
from .verify import Progress


def _unseen(count: int) -> None:
    pass


def to_safetensors(
    path: Path, manifest: Manifest, target: Path, part: str | None = None, progress: Progress = _unseen
) -> int:
    """One file, a tensor at a time; its size. The keys are the names with "." for "/", without the part's
    where one is chosen. Raises StateError where two become the same, and as `read_tensor` does."""
    chosen = {_key(name, part): name for name in _names(manifest, part)}
    if len(chosen) != len(_names(manifest, part)):
        raise StateError('two tensors have the same name when "." stands for "/": export one part')
    entries: list[tuple[str, str, tuple[int, ...], int]] = []
    for key, name in chosen.items():
        tensor = manifest.tensors[name]
        size = sum(piece.box.size for piece in tensor.pieces) * itemsize(tensor.dtype)
        entries.append((key, tensor.dtype, tensor.shape, size))
    plan = safetensors_header.plan(entries)
    with _new(target) as partial, open(partial, "xb") as file:
        file.write(plan.header)
        for key in plan.offsets:
            data = read_tensor(path, manifest, chosen[key])
            file.write(data)
            progress(len(data))
        file.flush()
        os.fsync(file.fileno())
    return plan.file_bytes


def to_torch(
    path: Path, manifest: Manifest, target: Path, part: str | None = None, progress: Progress = _unseen
) -> int:
    """A file of `torch.save`, as `torch.load(..., weights_only=True)` reads it where objects allow; its
    size. Holds the state in memory."""
    import torch

    with _new(target) as partial, open(partial, "xb") as file:
        state = as_state(path, manifest, part, progress)
        with _torchs_errors(target):
            torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def to_dcp(
    path: Path, manifest: Manifest, target: Path, part: str | None = None, progress: Progress = _unseen
) -> int:
    """A folder of `torch.distributed.checkpoint`, written by one process; its size. Holds the state in
    memory."""
    from torch.distributed.checkpoint.state_dict_saver import save

    with _new(target) as partial:
        state = as_state(path, manifest, part, progress)
        if not isinstance(state, dict):
            raise StateError(f"part {part!r} is no dict, and DCP saves nothing else")
        with _torchs_errors(target):
            save(state, checkpoint_id=partial, no_dist=True)
        sync_folder(partial)
        return sum(file.stat().st_size for file in partial.iterdir())


def as_state(path: Path, manifest: Manifest, part: str | None = None, progress: Progress = _unseen) -> Any:
    """The objects of a step with torch tensors in their places: of one part, or of all by part. What ranks
    had for themselves is left out."""
    from .torch_bytes import tensor_of

    made: dict[str, Any] = {}  # one tensor for a name, wherever it stands

    def tensor(name: str) -> Any:
        if name not in made:
            data = read_tensor(path, manifest, name)
            progress(len(data))
            made[name] = tensor_of(manifest.tensors[name].dtype, manifest.tensors[name].shape, data)
        return made[name]

    if part is None:
        return {name: tagged.decode(value, tensor=tensor) for name, value in manifest.objects.items()}
    if part not in manifest.objects:
        raise NoCheckpointError(_no_part(manifest, part))
    return tagged.decode(manifest.objects[part], tensor=tensor)


def _names(manifest: Manifest, part: str | None) -> list[str]:
    if part is None:
        return list(manifest.tensors)
    chosen = [name for name in manifest.tensors if names.split(name)[0] == part]
    if not chosen:
        raise NoCheckpointError(_no_part(manifest, part))
    return chosen


def _no_part(manifest: Manifest, part: str) -> str:
    parts = ", ".join(names.shown(name) for name in manifest.objects) or "none"
    return f"step {manifest.step} has no part {names.shown(part)}; its parts: {parts}"


def _key(name: str, part: str | None) -> str:
    path = names.split(name)
    return ".".join(path if part is None or len(path) == 1 else path[1:])


@contextmanager
def _torchs_errors(target: Path) -> Iterator[None]:
    """Of its writers: a RuntimeError of C++; and DCP's, which is no Exception and holds those of its ranks.
    An OSError within is raised in their place."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except (RuntimeError, CheckpointException) as error:
        inner: BaseException = error
        if isinstance(error, CheckpointException):
            inner = next((wrapped[0] for wrapped in error.failures.values()), error)
        while not isinstance(inner, OSError) and (cause := inner.__cause__ or inner.__context__) is not None:
            inner = cause
        if isinstance(inner, OSError):
            raise inner from None
        raise CheckpointError(f"cannot write {target}: {inner}; is its disk full?") from error


@contextmanager
def _new(target: Path) -> Iterator[Path]:
    """Where to write what is called `target` once it is whole: a kill or an error leaves no half of it under
    that name, and the next try takes away what a killed one left."""
    if target.exists():
        raise BusyError(f"{target} exists already; nothing is written over")
    partial = target.with_name(target.name + PART)
    with explained(f"write {target}"):
        _remove(partial)
        try:
            yield partial
            os.rename(partial, target)
            sync_folder(target.absolute().parent)
        except BaseException:
            with suppress(OSError):
                _remove(partial)
            raise


def _remove(partial: Path) -> None:
    """A file, or a folder with what DCP writes; anything else in it stays, and is in the way."""
    if partial.is_dir() and not partial.is_symlink():
        for name in os.listdir(partial):
            if name.startswith(".metadata") or name.endswith(".distcp"):
                (partial / name).unlink()
        partial.rmdir()
    else:
        partial.unlink(missing_ok=True)
