"""What other formats hold, as tensors to write and a tree of objects that refers to them.

A tree has the parts of the state at its top; a file of tensors alone is the part "model".
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DamagedError, StateError
from ..values import dtypes, names, tagged
from ..values.bounded_json import Json
from . import folder
from .boxes import Box
from .dcp_metadata import FILE_NAME as DCP_FILE
from .dcp_metadata import Place, read_index
from .files import explained, opened, read_at
from .plain_writer import Source
from .safetensors_file import read_entry, read_header

Path_ = tuple[str | int, ...]


@dataclass(slots=True)
class Found:
    """`kind` is "dcp", "safetensors" or "torch"; `objects` as a manifest has them."""

    kind: str
    sources: list[Source] = field(default_factory=list)
    objects: dict[str, Json] = field(default_factory=dict)


class Skip:
    """Names to leave out, with what is below them; of a part without a name there, without it, too."""

    def __init__(self, left: Sequence[str]) -> None:
        self._left, self._met = tuple(left), set[str]()

    def __bool__(self) -> bool:
        return bool(self._left)

    def __call__(self, *called: str) -> bool:
        """Whether what is called so, in one way or another, is left out."""
        hits = {left for left in self._left for name in called if _is_below(name, left)}
        self._met |= hits
        return bool(hits)

    def expect_all_met(self) -> None:
        if strangers := [name for name in self._left if name not in self._met]:
            shown = ", ".join(map(names.shown, strangers))
            raise StateError(f"nothing there is called {shown}, to be left out")


def _is_below(name: str, left: str) -> bool:
    return name == left or name.startswith((f"{left}/", f"{left}."))


def read_any(source: Path, part: str | None = None, skip: Sequence[str] = ()) -> Found:
    """What is at a path: a DCP folder, a safetensors file, a folder of them, or a file of torch.save.

    `part` puts all of it under this name, `skip` leaves out names and what is below them. Raises
    DamagedError for anything else, and StateError for what has no place in a checkpoint, and for a name to
    be left out that is not there.
    """
    left_out = Skip(skip)
    found = _read_any(source, part, left_out)
    left_out.expect_all_met()
    return found


def _read_any(source: Path, part: str | None, skip: Skip) -> Found:
    if source.is_dir():
        if folder.read_step(source) is not None or folder.scan(source).steps:
            raise StateError(f"{source} has steps of this format already: copy them, or use reshard")
        if (source / DCP_FILE).exists():
            return _dcp(source, part, skip)
        if files := sorted(source.glob("*.safetensors")):
            return _safetensors(files, part or "model", skip)
        raise DamagedError(f"{source} has neither a {DCP_FILE} of DCP nor safetensors files")
    with explained(f"read {source}"):
        if source.exists() and not source.is_file():  # a pipe would wait for its writer
            raise DamagedError(f"{source} is neither a folder nor a regular file")
        with open(source, "rb") as file:
            zipped = zipfile.is_zipfile(file)
    if zipped:
        return _torch(source, part, skip)
    try:
        return _safetensors([source], part or "model", skip)
    except DamagedError as error:
        text = f"{error} (nor a zip file, which torch.save writes unless told to write its old format)"
        raise DamagedError(text) from None


def _safetensors(files: Sequence[Path], part: str, skip: Skip) -> Found:
    found = Found("safetensors")
    tree: dict[str, tagged.Reference] = {}
    for file in files:
        for key, entry in read_header(file).tensors.items():
            if skip(key, f"{part}/{key}"):
                continue
            if key in tree:
                raise StateError(f"{names.shown(key)} is in several files")
            if entry.dtype not in dtypes.DTYPES:
                raise StateError(f"{names.shown(key)} has elements of {entry.dtype}, parts of bytes")
            name = names.join((part, key))
            tree[key] = tagged.Reference(name)
            found.sources.append(Source(name, entry.dtype, entry.shape, partial(read_entry, file, entry)))
    found.objects[part] = tagged.encode(tree, path=(part,))
    return found


def _torch(source: Path, part: str | None, skip: Skip) -> Found:
    import torch

    try:
        state = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        raise StateError(_refused(str(source), error)) from None
    found = Found("torch")
    parts = _as_parts(state, part)
    _add_tree(found, parts, skip, bare=any(value is state for value in parts.values()))
    return found


def _refused(what: str, error: Exception) -> str:
    why = (str(error).strip().splitlines() or [""])[0]
    return (
        f"{what} cannot be read with weights_only=True, which runs nothing that a file says ({why}). "
        "Load it where it is trusted, and save only tensors and plain values"
    )


def _as_parts(state: Any, part: str | None) -> dict[str, Any]:
    """A dict of dicts is the parts themselves, a dict of tensors is one."""
    if part is not None:
        return {part: state}
    if isinstance(state, dict) and state and all(type(key) is str and key for key in state):
        import torch

        if not any(isinstance(value, torch.Tensor) for value in state.values()):
            return dict(state)
    return {"model": state}


def _add_tree(found: Found, parts: dict[str, Any], skip: Skip, *, bare: bool) -> None:
    """`bare`: the source has no name for the part."""
    from .torch_bytes import bytes_of, dtype_of

    known: dict[tuple[object, ...], str] = {}  # tensors that share memory stay one

    def name_of(path: Path_, value: Any) -> str | None:
        if isinstance(value, np.ndarray):
            return None  # inline
        name = names.join(path)
        dtype = dtype_of(value, name)
        same = (value.data_ptr(), value.dtype, value.shape, value.stride())
        if value.numel() and same in known:
            return known[same]
        known[same] = name
        found.sources.append(Source(name, dtype, tuple(value.shape), lambda: bytes_of(value)))
        return name

    for part, value in parts.items():
        if not skip(part):
            kept = _without(value, part, skip, bare)
            found.objects[part] = tagged.encode(kept, path=(part,), tensor=name_of)


def _without(value: Any, at: str, skip: Skip, bare: bool) -> Any:
    if not skip or not isinstance(value, dict):
        return value

    def is_left_out(name: str) -> bool:
        return skip(name, name.partition("/")[2]) if bare else skip(name)

    kept = {key: item for key, item in value.items() if not is_left_out(f"{at}/{key}")}
    return {key: _without(item, f"{at}/{key}", skip, bare) for key, item in kept.items()}


def _dcp(source: Path, part: str | None, skip: Skip) -> Found:
    index = read_index(source)
    found = Found("dcp")
    tree: dict[Any, Any] = {}
    front: Path_ = () if part is None else (part,)
    for flat, held in index.tensors.items():
        if skip(flat, "/".join(map(str, index.paths.get(flat, ())))):
            continue
        path = (*front, *index.paths.get(flat, (flat,)))
        path = path if len(path) > 1 else ("model", *path)
        name = names.join(path)
        _put(tree, path, tagged.Reference(name))
        for box, place in held.chunks.items():
            read = partial(_dcp_tensor, source, place, box, held.dtype)
            found.sources.append(Source(name, held.dtype, held.shape, read, box))
    for flat, place in index.objects.items():
        if not skip(flat, "/".join(map(str, index.paths.get(flat, ())))):
            _put(tree, (*front, *index.paths.get(flat, (flat,))), _dcp_load(source, place, flat))
    for key, value in _lists(tree).items():
        found.objects[str(key)] = tagged.encode(value, path=(str(key),), tensor=None)
    return found


def _put(tree: dict[Any, Any], path: Path_, value: Any) -> None:
    for key in path[:-1]:
        inside = tree.setdefault(key, {})
        if not isinstance(inside, dict):
            raise StateError(f"{names.path_shown(path)} is inside of a value")
        tree = inside
    tree[path[-1]] = value


def _lists(tree: dict[Any, Any]) -> dict[Any, Any]:
    """Dicts whose keys are 0, 1, 2, ... were lists."""
    return {key: _list_or_dict(value) for key, value in tree.items()}


def _list_or_dict(value: Any) -> Any:
    if type(value) is not dict or not value:
        return value
    inner = _lists(value)
    if all(type(key) is int for key in inner) and sorted(inner) == list(range(len(inner))):
        return [inner[index] for index in range(len(inner))]
    return inner


def _dcp_load(source: Path, place: Place, flat: str) -> Any:
    import torch

    with explained(f"read {source / place.file}"), opened(source, place.file) as (file, size):
        if place.offset + place.length > size:
            raise DamagedError(f"{source / place.file} ends before {names.shown(flat)}")
        data = read_at(file, place.offset, place.length)
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        refusal = _refused(f"{names.shown(flat)} of {source}", error)
        raise StateError(f"{refusal}; or leave it out: --skip {flat}") from None


def _dcp_tensor(source: Path, place: Place, box: Box, dtype: str) -> memoryview:
    from .torch_bytes import bytes_of

    tensor = _dcp_load(source, place, place.file)
    if tuple(tensor.shape) != box.shape or dtypes.of_torch(tensor.dtype) != dtype:
        raise DamagedError(
            f"{source / place.file} has {tensor.dtype} {tuple(tensor.shape)}, not {dtype} {box.shape}"
        )
    return bytes_of(tensor)
