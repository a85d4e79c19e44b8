"""The header of a shard file, as safetensors has it: planned for aligned writing, parsed from anybody.

A file is 8 bytes (length of the header, little-endian), the header (a JSON object, padded with spaces), then
the tensors' bytes without holes. Ours begin the data at a multiple of 4096 and hold wide elements before
narrow ones, so that each tensor is aligned to its element.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from ..errors import DamagedError, StateError
from ..values import bounded_json, dtypes, names
from ..values.limits import ALIGNMENT, HEADER_BYTES_MAX, INT_MAX, NAME_BYTES_MAX, RANK_MAX, TENSORS_MAX

PREFIX_BYTES = 8
METADATA = {"format": "pt"}  # some readers ask for it


class Entry(NamedTuple):
    """A tensor of a file; `begin` and `end` count from the file's begin."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class ShardPlan:
    header: bytes  # with its prefix and its padding: what the file begins with
    offsets: dict[str, int]  # of each tensor, from the file's begin, in the order of the file
    file_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    tensors: dict[str, Entry]  # in the order of the file
    metadata: dict[str, str]
    data_offset: int
    file_bytes: int


def tensor_bytes(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of a dense tensor. Raises KeyError for an unknown dtype, ValueError for a part of a byte."""
    bits = dtypes.PARTS_OF_BYTES.get(dtype) or dtypes.DTYPES[dtype].bits
    whole, rest = divmod(bits * math.prod(shape), 8)
    if rest:
        raise ValueError(f"a tensor of {dtype} and shape {tuple(shape)} ends inside of a byte")
    return whole


def plan(
    entries: Sequence[tuple[str, str, Sequence[int], int]], metadata: Mapping[str, str] | None = None
) -> ShardPlan:
    """Where each tensor (name, dtype, shape, bytes) comes to lie.

    Raises StateError for a name that no file can have, or has already, and for sizes that do not fit.
    """
    table: dict[str, Any] = {"__metadata__": dict(METADATA if metadata is None else metadata)}
    starts: dict[str, int] = {}
    end = 0
    for name, dtype, shape, size in sorted(entries, key=_falling_alignment):
        if wrong := names.fault(name):
            raise StateError(f"no tensor can be saved under {names.shown(name)}: {wrong}")
        if name in table:
            raise StateError(f"two tensors of one shard are called {names.shown(name)}")
        if dtype not in dtypes.DTYPES or len(shape) > RANK_MAX or size != tensor_bytes(dtype, shape):
            raise StateError(f"{names.shown(name)}: {dtype} of shape {tuple(shape)} is not {size} bytes")
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        starts[name] = end
        end += size
    text = bounded_json.dumps(table)
    data_offset = -(-(PREFIX_BYTES + len(text)) // ALIGNMENT) * ALIGNMENT
    length = data_offset - PREFIX_BYTES
    if length > HEADER_BYTES_MAX:
        raise StateError(
            f"the names of {len(entries)} tensors need a header of {length} bytes; 100 MB is the most"
        )
    header = struct.pack("<Q", length) + text.ljust(length)
    offsets = {name: data_offset + start for name, start in starts.items()}
    return ShardPlan(header, offsets, data_offset + end)


def _falling_alignment(entry: tuple[str, str, Sequence[int], int]) -> int:
    return -dtypes.DTYPES[entry[1]].bits if entry[1] in dtypes.DTYPES else 0


def header_bytes(prefix: bytes, file_bytes: int, *, what: str = "header") -> int:
    """How many bytes of a file `parse` needs, by its first 8. Raises DamagedError where it is none."""
    if len(prefix) < PREFIX_BYTES:
        raise DamagedError(f"{what}: {len(prefix)} bytes are no safetensors file")
    (length,) = struct.unpack_from("<Q", prefix)
    if length > HEADER_BYTES_MAX or length < 2 or PREFIX_BYTES + length > file_bytes:
        raise DamagedError(
            f"{what}: no safetensors file: a header of {length} bytes in a file of {file_bytes}"
        )
    return int(PREFIX_BYTES + length)


def parse(data: bytes, file_bytes: int, *, what: str = "header") -> Header:
    """The header that `data` begins with, of a file of this size: known dtypes, sizes that are what shape and
    dtype say, and bytes without holes or overlaps up to the file's end.

    Raises DamagedError that begins with `what`.
    """

    def refuse(why: str) -> NoReturn:
        raise DamagedError(f"{what}: {why}")

    data_offset = header_bytes(data, file_bytes, what=what)
    if len(data) < data_offset:
        refuse(f"the header ends after {len(data)} of {data_offset} bytes")
    if data[PREFIX_BYTES : PREFIX_BYTES + 1] != b"{":
        refuse("the header does not begin with {")
    text = bytes(data[PREFIX_BYTES:data_offset])
    table = bounded_json.loads(text, what=what, bytes_max=HEADER_BYTES_MAX, depth_max=4)
    if not isinstance(table, dict):
        refuse("the header is no JSON object")
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        refuse("__metadata__ is not an object of strings")
    if len(table) > TENSORS_MAX:
        refuse(f"{len(table)} tensors are more than {TENSORS_MAX}")
    found = {name: _entry(name, value, data_offset, refuse) for name, value in table.items()}
    ordered = dict(sorted(found.items(), key=lambda item: (item[1].begin, item[1].end)))
    end = data_offset
    for name, entry in ordered.items():
        if entry.begin != end:
            refuse(
                f"{names.shown(name)} begins at byte {entry.begin}, where {end} is due: a hole or an overlap"
            )
        end = entry.end
    if end != file_bytes:
        refuse(f"the tensors end at byte {end} of a file of {file_bytes}")
    return Header(ordered, metadata, data_offset, file_bytes)


def _entry(name: str, value: Any, data_offset: int, refuse: Any) -> Entry:
    shown = names.shown(name)
    if len(name.encode()) > NAME_BYTES_MAX:
        refuse(f"the name {shown} is too long")
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        refuse(f"{shown} has not exactly dtype, shape and data_offsets")
    dtype, shape, span = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in dtypes.DTYPES and dtype not in dtypes.PARTS_OF_BYTES:
        refuse(f"{shown} has a dtype that is not known: {dtype!r:.40}")
    if not _sizes(shape) or len(shape) > RANK_MAX:
        refuse(f"{shown} has no proper shape")
    if not _sizes(span) or len(span) != 2 or span[0] > span[1]:
        refuse(f"{shown} has no proper data_offsets")
    try:
        size = tensor_bytes(dtype, shape)
    except ValueError as error:
        refuse(f"{shown}: {error}")
    if size != span[1] - span[0]:
        refuse(f"{shown} has {span[1] - span[0]} bytes, but dtype and shape say {size}")
    return Entry(dtype, tuple(shape), data_offset + span[0], data_offset + span[1])


def _sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size <= INT_MAX for size in value)
