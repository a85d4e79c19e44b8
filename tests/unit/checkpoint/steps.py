"""Manifests for tests: drawn at random, and one by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from pccl_py.checkpoint import safetensors_header
from pccl_py.checkpoint.boxes import Box, whole
from pccl_py.checkpoint.manifest import Manifest, Piece, Shard, Tensor
from pccl_py.checkpoint.manifest_body import shard_file
from pccl_py.values import dtypes, names, tagged

# A busy machine fails no test by its slowness.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(
    lambda name: not names.fault(name)
)
SHAPES = st.lists(st.integers(0, 6), max_size=3).map(tuple)


def split_rows(shape: tuple[int, ...], parts: int) -> list[Box]:
    """A tensor cut along its first dimension; no empty boxes."""
    if not shape or math.prod(shape) == 0:
        return [whole(shape)]
    edges = [round(shape[0] * part / parts) for part in range(parts + 1)]
    return [
        Box((low, *[0] * (len(shape) - 1)), (high - low, *shape[1:]))
        for low, high in zip(edges, edges[1:], strict=False)
        if high > low
    ]


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    world = draw(st.integers(1, 3))
    block_bytes = draw(st.sampled_from([4096, 8192, 1 << 20]))
    tensors = draw(
        st.dictionaries(NAMES, st.tuples(st.sampled_from(sorted(dtypes.DTYPES)), SHAPES), max_size=5)
    )
    held: list[list[tuple[str, Box]]] = [[] for _ in range(world)]
    for name, (_, shape) in tensors.items():
        for index, box in enumerate(split_rows(shape, world)):
            held[index].append((name, box))
    found: dict[str, list[Piece]] = {name: [] for name in tensors}
    shards = []
    for rank, mine in enumerate(held):
        entries = [
            (name, tensors[name][0], box.shape, box.size * dtypes.itemsize(tensors[name][0]))
            for name, box in mine
        ]
        plan = safetensors_header.plan(entries)
        for name, box in mine:
            found[name].append(Piece(rank, plan.offsets[name], box, draw(st.integers(0, 2**32 - 1))))
        crcs = draw(st.binary(min_size=4, max_size=4)) * -(-plan.file_bytes // block_bytes)
        shards.append(Shard(shard_file(rank, world), plan.file_bytes, len(plan.header), crcs))
    parts = st.dictionaries(NAMES, st.integers() | st.tuples(st.text(), st.floats()), max_size=2)
    return Manifest(
        step=draw(st.integers(0, 10**12 - 1)),
        time=draw(st.floats(0, 1e15)),
        world=world,
        block_bytes=block_bytes,
        shards=tuple(shards),
        tensors={name: Tensor(*tensors[name], tuple(pieces)) for name, pieces in found.items()},
        objects={name: tagged.encode(value) for name, value in draw(parts).items()},
        private={
            rank: {name: tagged.encode(value) for name, value in draw(parts).items()}
            for rank in draw(st.sets(st.integers(0, world - 1)))
        },
        notes=draw(
            st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
        ),
    )


def small() -> Manifest:
    """One tensor of 2 x 3 float32 in two shards of one row each."""
    plan = safetensors_header.plan([("w", "F32", (1, 3), 12)])
    crcs = np.array([1, 2], "<u4").tobytes()
    shards = tuple(Shard(shard_file(rank, 2), plan.file_bytes, len(plan.header), crcs) for rank in range(2))
    pieces = tuple(Piece(rank, 4096, Box((rank, 0), (1, 3)), 7 + rank) for rank in range(2))
    return Manifest(
        step=1200,
        time=1.5e9,
        world=2,
        block_bytes=4096,
        shards=shards,
        tensors={"w": Tensor("F32", (2, 3), pieces)},
        objects={"model": {"w": {"$tensor": "w"}}},
        private={1: {"rng": {"$bytes": "AAAA"}}},
        notes={"run": "seven"},
    )


def body() -> dict[str, Any]:
    """The JSON of `small`."""
    from pccl_py.checkpoint import manifest_body

    return manifest_body.write(small())
