"""The body of a manifest: JSON to dataclasses with every bound checked, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np

from ..errors import DamagedError, StateError
from ..values import dtypes, limits, names
from ..values.bounded_json import Json
from .boxes import Box, cover
from .manifest import Manifest, Piece, Shard, Tensor

KEYS = ("step", "time", "world", "block_bytes", "shards", "tensors", "objects", "private", "notes")
_SHARD_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}\.safetensors")
_HEX_WORD = re.compile("[0-9a-f]{8}")
_HEX_WORDS = re.compile("(?:[0-9a-f]{8})*")
_RANK = re.compile("0|[1-9][0-9]{0,4}")


def shard_file(rank: int, world: int) -> str:
    """The name of a rank's shard file."""
    return f"shard-{rank:05d}-of-{world:05d}.safetensors"


def is_shard_file(name: str) -> bool:
    """Whether a manifest may name such a file: one in the step's own folder, and nothing special there."""
    return _SHARD_FILE.fullmatch(name) is not None


def write(manifest: Manifest) -> dict[str, Json]:
    return {
        "step": manifest.step,
        "time": manifest.time,
        "world": manifest.world,
        "block_bytes": manifest.block_bytes,
        "shards": [write_shard(shard) for shard in manifest.shards],
        "tensors": {name: write_tensor(tensor) for name, tensor in manifest.tensors.items()},
        "objects": dict(manifest.objects),
        "private": {str(rank): dict(parts) for rank, parts in manifest.private.items()},
        "notes": dict(manifest.notes),
    }


def write_shard(shard: Shard) -> dict[str, Json]:
    crcs = np.frombuffer(shard.crcs, "<u4").astype(">u4").tobytes().hex()
    return {"file": shard.file, "bytes": shard.bytes, "data_offset": shard.data_offset, "crc32": crcs}


def write_tensor(tensor: Tensor) -> dict[str, Json]:
    pieces: list[Json] = [
        {
            "shard": piece.shard,
            "offset": piece.offset,
            "start": list(piece.box.start),
            "shape": list(piece.box.shape),
            "crc32": f"{piece.crc32:08x}",
        }
        for piece in tensor.pieces
    ]
    return {"dtype": tensor.dtype, "shape": list(tensor.shape), "pieces": pieces}


class Reader:
    """Checks one decoded body; every refusal is a DamagedError that begins with `what`."""

    def __init__(self, what: str) -> None:
        self._what = what

    def refuse(self, why: str) -> NoReturn:
        raise DamagedError(f"{self._what}: {why}")

    def fields(self, value: object, keys: Iterable[str], of: str) -> dict[str, Any]:
        if not isinstance(value, dict) or value.keys() != set(keys):
            self.refuse(f"{of} has not exactly {', '.join(keys)}")
        return value

    def table(self, value: object, of: str, most: int = limits.TENSORS_MAX) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) > most:
            self.refuse(f"{of} is no object, or has more than {most} entries")
        return value

    def array(self, value: object, of: str, most: int) -> list[Any]:
        if not isinstance(value, list) or len(value) > most:
            self.refuse(f"{of} is no list, or longer than {most}")
        return value

    def number(self, value: object, of: str, least: int = 0, most: int = limits.INT_MAX) -> int:
        if type(value) is not int or not least <= value <= most:
            self.refuse(f"{of} is no integer from {least} to {most}")
        return value

    def sizes(self, value: object, of: str) -> tuple[int, ...]:
        return tuple(self.number(size, of) for size in self.array(value, of, limits.RANK_MAX))

    def shard(self, value: object, block_bytes: int) -> Shard:
        found = self.fields(value, ("file", "bytes", "data_offset", "crc32"), "a shard")
        file, crcs = found["file"], found["crc32"]
        if not isinstance(file, str) or not is_shard_file(file):
            self.refuse(f"a shard file may not be called {names.shown(str(file))}")
        size = self.number(found["bytes"], f"the size of {file}")
        data_offset = self.number(found["data_offset"], f"the data_offset of {file}", 8, size)
        blocks = -(-size // block_bytes)
        if not isinstance(crcs, str) or len(crcs) != 8 * blocks or not _HEX_WORDS.fullmatch(crcs):
            self.refuse(f"{file} has not one checksum for each of its {blocks} blocks")
        return Shard(
            file, size, data_offset, np.frombuffer(bytes.fromhex(crcs), ">u4").astype("<u4").tobytes()
        )

    def tensor(self, name: str, value: object, shards: int) -> Tensor:
        shown = names.shown(name)
        if wrong := names.fault(name):
            self.refuse(f"no tensor can be called {shown}: {wrong}")
        found = self.fields(value, ("dtype", "shape", "pieces"), shown)
        dtype, shape = found["dtype"], self.sizes(found["shape"], f"the shape of {shown}")
        if not isinstance(dtype, str) or dtype not in dtypes.DTYPES:
            self.refuse(f"{shown} has a dtype that is not known: {dtype!r:.40}")
        listed = self.array(found["pieces"], f"the pieces of {shown}", limits.SHARDS_MAX)
        return Tensor(dtype, shape, tuple(self.piece(shown, piece, shape, shards) for piece in listed))

    def piece(self, shown: str, value: object, shape: tuple[int, ...], shards: int) -> Piece:
        found = self.fields(value, ("shard", "offset", "start", "shape", "crc32"), f"a piece of {shown}")
        box = Box(self.sizes(found["start"], "a start"), self.sizes(found["shape"], "a shape"))
        if not box.inside(shape):
            self.refuse(f"a piece of {shown} lies outside of the tensor")
        crc = found["crc32"]
        if not isinstance(crc, str) or not _HEX_WORD.fullmatch(crc):
            self.refuse(f"a piece of {shown} has no checksum")
        shard = self.number(found["shard"], f"the shard of a piece of {shown}", 0, shards - 1)
        return Piece(
            shard, self.number(found["offset"], f"the offset of a piece of {shown}"), box, int(crc, 16)
        )

    def private(self, value: object, world: int) -> dict[int, dict[str, Json]]:
        found = self.table(value, "private", world)
        for rank in found:
            if not _RANK.fullmatch(rank) or int(rank) >= world:
                self.refuse(f"{names.shown(rank)} is no rank of {world}")
        return {int(rank): self.objects(parts, f"private of rank {rank}") for rank, parts in found.items()}

    def objects(self, value: object, of: str) -> dict[str, Json]:
        found = self.table(value, of)
        for name in found:
            if wrong := names.fault(name):
                self.refuse(f"{of}: no part can be called {names.shown(name)}: {wrong}")
        return found

    def notes(self, value: object) -> dict[str, str]:
        found = self.table(value, "notes")
        if not all(isinstance(note, str) for note in found.values()):
            self.refuse("a note is no text")
        return found


def read(body: Json, what: str) -> Manifest:
    """The manifest of a parsed body. Raises DamagedError."""
    reader = Reader(what)
    found = reader.fields(body, KEYS, "the body")
    time = found["time"]
    if type(time) not in (int, float) or not 0 <= time <= 1e15:
        reader.refuse("time is no number of seconds")
    world = reader.number(found["world"], "world", 1, limits.SHARDS_MAX)
    block_bytes = reader.number(
        found["block_bytes"], "block_bytes", limits.BLOCK_BYTES_MIN, limits.BLOCK_BYTES_MAX
    )
    listed = reader.array(found["shards"], "shards", limits.SHARDS_MAX)
    shards = tuple(reader.shard(shard, block_bytes) for shard in listed)
    if len({shard.file for shard in shards}) != len(shards):
        reader.refuse("two shards have the same file")
    tensors = {
        name: reader.tensor(name, tensor, len(shards))
        for name, tensor in reader.table(found["tensors"], "tensors").items()
    }
    manifest = Manifest(
        step=reader.number(found["step"], "step", 0, limits.STEP_MAX),
        time=float(time),
        world=world,
        block_bytes=block_bytes,
        shards=shards,
        tensors=tensors,
        objects=reader.objects(found["objects"], "objects"),
        private=reader.private(found["private"], world),
        notes=reader.notes(found["notes"]),
    )
    check_places(manifest, reader)
    return manifest


def check_places(manifest: Manifest, reader: Reader) -> None:
    """Pieces lie in their shards' data and cover their tensors. Two pieces are the same bytes, by their
    checksums too (tied weights, equal replicas), or have none in common."""
    spans: list[tuple[int, int, int, int, str]] = []
    work = [-16 * sum(len(tensor.pieces) for tensor in manifest.tensors.values())]  # what any grid needs, and
    # once for all tensors what irregular cuts may take
    for name, tensor in manifest.tensors.items():
        item = dtypes.itemsize(tensor.dtype)
        for piece in tensor.pieces:
            shard = manifest.shards[piece.shard]
            end = piece.offset + piece.box.size * item
            if piece.offset < shard.data_offset or end > shard.bytes:
                reader.refuse(f"a piece of {names.shown(name)} lies outside of the data of {shard.file}")
            spans.append((piece.shard, piece.offset, end, piece.crc32, name))
        if not _covers(tensor, reader, name, work):
            reader.refuse(f"the pieces of {names.shown(name)} overlap, or do not cover it")
    spans.sort()
    for (shard_a, first, end, sum_a, a), (shard_b, begin, last, sum_b, b) in pairwise(spans):
        same = (first, end, sum_a) == (begin, last, sum_b)
        if shard_a == shard_b and begin < end and not same:
            reader.refuse(f"pieces of {names.shown(a)} and {names.shown(b)} share bytes of a shard")


def _covers(tensor: Tensor, reader: Reader, name: str, work: list[int]) -> bool:
    try:
        return cover(tensor.shape, [piece.box for piece in tensor.pieces], work)
    except StateError as error:
        reader.refuse(f"{names.shown(name)}: {error}")


def tensors_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of all the elements."""
    return sum(
        dtypes.itemsize(tensor.dtype) * piece.box.size
        for tensor in tensors.values()
        for piece in tensor.pieces
    )
