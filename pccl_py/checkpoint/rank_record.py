"""What each rank reports of its shard, and how these records become the manifest."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import StateError
from ..values import bounded_json, limits, names
from ..values.bounded_json import Json
from . import manifest_body
from .boxes import Box, intersect
from .manifest import Manifest, Piece, Shard, Tensor


@dataclass(frozen=True, slots=True)
class RankRecord:
    """A rank's shard file (None: it has no tensors), the pieces in it (their shard is 0), and its objects."""

    rank: int
    shard: Shard | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    objects: Mapping[str, Json] = field(default_factory=dict)
    private: Mapping[str, Json] = field(default_factory=dict)


def encode_record(record: RankRecord) -> bytes:
    """For the rank that merges. Raises StateError for what JSON cannot hold."""
    value: dict[str, Json] = {
        "rank": record.rank,
        "shard": None if record.shard is None else manifest_body.write_shard(record.shard),
        "tensors": {name: manifest_body.write_tensor(tensor) for name, tensor in record.tensors.items()},
        "objects": dict(record.objects),
        "private": dict(record.private),
    }
    try:
        return bounded_json.dumps(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise StateError(f"the record of rank {record.rank} cannot be written: {error}") from None


def decode_record(data: bytes, block_bytes: int, *, what: str = "a rank's record") -> RankRecord:
    """From anybody's bytes. Raises DamagedError that begins with `what`."""
    reader = manifest_body.Reader(what)
    value = bounded_json.loads(data, what=what, bytes_max=limits.MANIFEST_BYTES_MAX)
    found: dict[str, Any] = reader.fields(value, ("rank", "shard", "tensors", "objects", "private"), "it")
    shard = None if found["shard"] is None else reader.shard(found["shard"], block_bytes)
    listed = reader.table(found["tensors"], "tensors")
    return RankRecord(
        reader.number(found["rank"], "rank", 0, limits.SHARDS_MAX - 1),
        shard,
        {name: reader.tensor(name, tensor, int(shard is not None)) for name, tensor in listed.items()},
        reader.objects(found["objects"], "objects"),
        reader.objects(found["private"], "private"),
    )


def merge(
    records: Iterable[RankRecord],
    *,
    step: int,
    time: float,
    world: int,
    block_bytes: int = limits.BLOCK_BYTES,
    notes: Mapping[str, str] | None = None,
    prefer: Container[int] = (),
) -> Manifest:
    """The manifest of a step that `world` ranks wrote. What several ranks saved is taken from those of
    `prefer` (whose files are in the same folder), then from the lowest.

    Raises StateError where a rank is missing or there twice, where two describe a tensor or a common object
    differently, and (from `manifest.encode`) where pieces do not cover a tensor.
    """
    ordered = sorted(records, key=lambda record: record.rank)
    if [record.rank for record in ordered] != list(range(world)):
        raise StateError(
            f"records of ranks {[record.rank for record in ordered]}, not of each of {world} once"
        )
    index: dict[int, int] = {}
    shards: list[Shard] = []
    for record in ordered:
        if record.shard is not None:
            index[record.rank] = len(shards)
            shards.append(record.shard)
    joined: dict[str, tuple[Tensor, dict[Box, Piece]]] = {}
    objects: dict[str, Json] = {}
    for record in sorted(ordered, key=lambda record: record.rank not in prefer):
        for name, tensor in record.tensors.items():
            known, pieces = joined.setdefault(name, (tensor, {}))
            _expect_equal(name, known, tensor, record.rank)
            for piece in tensor.pieces:
                pieces.setdefault(piece.box, replace(piece, shard=index[record.rank]))
        for name, value in record.objects.items():
            if name in objects and objects[name] != value:
                raise StateError(
                    f"rank {record.rank} has another {names.shown(name)}: save it as a private part"
                )
            objects[name] = value
    tensors = {name: replace(tensor, pieces=_once(tensor, found)) for name, (tensor, found) in joined.items()}
    private = {record.rank: record.private for record in ordered if record.private}
    return Manifest(
        step, time, world, block_bytes, tuple(shards), tensors, objects, private, dict(notes or {})
    )


def _once(tensor: Tensor, found: Mapping[Box, Piece]) -> tuple[Piece, ...]:
    """Without pieces of what others before them have: replicas may be divided in several ways."""
    pieces = tuple(found.values())
    if sum(box.size for box in found) <= math.prod(tensor.shape):
        return pieces
    kept: list[Piece] = []
    for piece in pieces:
        if all(intersect(piece.box, other.box) is None for other in kept):
            kept.append(piece)
    return tuple(kept)


def _expect_equal(name: str, known: Tensor, more: Tensor, rank: int) -> None:
    if (known.dtype, known.shape) != (more.dtype, more.shape):
        raise StateError(
            f"rank {rank} has {names.shown(name)} as {more.dtype} {more.shape}, another one as "
            f"{known.dtype} {known.shape}"
        )
