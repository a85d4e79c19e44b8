"""The `.metadata` of torch's distributed checkpoints, read without torch and without running what it says.

It is a pickle. Here it is unpickled by classes of our own that stand for torch's and do nothing; every other
name in it is refused.
"""

from __future__ import annotations

import io
import pickle
import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DamagedError
from ..values import dtypes, limits, names
from .boxes import Box, cover
from .files import explained, opened, read_at

FILE_NAME = ".metadata"
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where bytes are: a file of the folder, and which bytes of it."""

    file: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class DcpTensor:
    dtype: str
    shape: tuple[int, ...]
    chunks: dict[Box, Place]


@dataclass(frozen=True, slots=True)
class DcpIndex:
    """What a folder holds, by torch's flat names; `paths` tells which nested place a flat name stands for."""

    tensors: dict[str, DcpTensor]
    objects: dict[str, Place]
    paths: dict[str, tuple[str | int, ...]]


class _Stand:
    """Takes what the pickle gives, and does nothing with it."""

    def __init__(self, *given: object) -> None:
        self.given: Any = given

    def __setstate__(self, state: Any) -> None:
        self.given = state

    def field(self, name: str) -> Any:
        if not isinstance(self.given, dict):
            raise ValueError(f"{type(self).__name__} without {name}")
        return self.given.get(name)


class _Index(_Stand):
    """A key of a dict: the name and the first element of a chunk."""

    def key(self) -> tuple[str, tuple[int, ...] | None]:
        offset = self.field("offset")
        return str(self.field("fqn")), None if offset is None else _ints(offset)

    def __hash__(self) -> int:
        return hash(self.key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Index) and self.key() == other.key()


class _Size(_Stand):
    pass


class _Tensor(_Stand):
    pass


class _Object(_Stand):
    pass


class _Dtype(str):
    pass


class _MemoryFormat(_Stand):
    pass


def _member(of: object, name: object) -> _Stand:
    """Of the one enumeration that such files have, and of nothing else."""
    if of is not _MemoryFormat or not isinstance(name, str):
        raise pickle.UnpicklingError("it asks for an attribute of something that is no enumeration")
    return _MemoryFormat(name)


_METADATA = "torch.distributed.checkpoint.metadata"
_KNOWN: dict[tuple[str, str], Any] = {
    (_METADATA, "MetadataIndex"): _Index,
    (_METADATA, "TensorStorageMetadata"): _Tensor,
    (_METADATA, "BytesStorageMetadata"): _Object,
    **{
        (_METADATA, name): _Stand
        for name in ("Metadata", "ChunkStorageMetadata", "TensorProperties", "StorageMeta")
    },
    (_METADATA, "_MEM_FORMAT_ENCODING"): _MemoryFormat,
    ("builtins", "getattr"): _member,  # how Python before 3.11.4 names a member of an enumeration
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"): _Stand,
    ("torch.distributed.checkpoint.filesystem", "_StoragePrefix"): _Stand,
    ("torch.serialization", "_get_layout"): _Stand,
    ("torch", "Size"): _Size,
    ("collections", "OrderedDict"): OrderedDict,
    ("pathlib", "PosixPath"): _Stand,
    ("pathlib", "PurePosixPath"): _Stand,
    **{("torch", dtype.torch): _Dtype(name) for name, dtype in dtypes.DTYPES.items() if dtype.torch},
}


class _Restricted(pickle._Unpickler):  # the one in Python: the one in C allocates what a hostile index says
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no such file needs") from None


def read_index(folder: Path) -> DcpIndex:
    """Of a folder that `torch.distributed.checkpoint.save` wrote. Raises DamagedError for anything else."""
    what = str(folder / FILE_NAME)
    with explained(f"read {what}"), opened(folder, FILE_NAME) as (file, size):
        if size > limits.MANIFEST_BYTES_MAX:
            raise DamagedError(f"{what}: {size} bytes where at most {limits.MANIFEST_BYTES_MAX} are read")
        data = read_at(file, 0, size)
    try:
        return _index(_Restricted(io.BytesIO(data)).load())
    except (Exception, RecursionError) as error:  # a pickle can fail in every way
        raise DamagedError(f"{what}: not what torch.distributed.checkpoint writes: {error}") from None


def _index(metadata: Any) -> DcpIndex:
    places = {key.key(): _place(info) for key, info in metadata.field("storage_data").items()}
    tensors: dict[str, DcpTensor] = {}
    objects: dict[str, Place] = {}
    for name, held in metadata.field("state_dict_metadata").items():
        if isinstance(held, _Tensor):
            tensors[name] = _tensor(name, held, places)
        elif isinstance(held, _Object):
            objects[name] = places[name, None]
        else:
            raise ValueError(f"{names.shown(str(name))} is neither a tensor nor an object")
    paths = metadata.field("planner_data") or {}
    return DcpIndex(tensors, objects, {name: _path(path) for name, path in paths.items() if path is not None})


def _tensor(name: str, held: _Tensor, places: dict[Any, Place]) -> DcpTensor:
    dtype = held.field("properties").given[0]
    if not isinstance(dtype, _Dtype):
        raise ValueError(f"{names.shown(name)} has no known dtype")
    shape = _ints(held.field("size"))
    chunks = {}
    for chunk in held.field("chunks"):
        box = Box(_ints(chunk.field("offsets")), _ints(chunk.field("sizes")))
        chunks[box] = places[name, box.start]
    if not cover(shape, list(chunks)):
        raise ValueError(f"the chunks of {names.shown(name)} overlap, or do not cover it")
    return DcpTensor(str(dtype), shape, chunks)


def _place(info: Any) -> Place:
    file, offset, length = (info.field(name) for name in ("relative_path", "offset", "length"))
    if info.field("transform_descriptors"):
        raise ValueError(
            f"{file} is transformed ({info.field('transform_descriptors')}): load and save it by torch"
        )
    if not isinstance(file, str) or not _FILE.fullmatch(file):
        raise ValueError(f"{file!r:.80} is no file of the folder")
    return Place(file, *_ints([offset, length]))


def _ints(value: Any) -> tuple[int, ...]:
    numbers = (
        value.given[0]
        if isinstance(value, _Size) and value.given
        else ()
        if isinstance(value, _Size)
        else value
    )
    if len(numbers) > limits.RANK_MAX or not all(
        type(n) is int and 0 <= n <= limits.INT_MAX for n in numbers
    ):
        raise ValueError("no shape")
    return tuple(numbers)


def _path(path: Any) -> tuple[str | int, ...]:
    if not isinstance(path, tuple) or not path or not all(type(part) in (str, int) for part in path):
        raise ValueError("no path in the state")
    return path
