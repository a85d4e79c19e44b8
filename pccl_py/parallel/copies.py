"""What several ranks of an island hold alike, and must hold alike for ever.

Each rank averages with its own peers, rank r with the ranks r of all islands. Sums in another order, or
quantization by what lies around it, give a copy other bits on each rank; so one rank's average counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from xxhash import xxh3_64_intdigest


class Told(Protocol):
    """An island."""

    @property
    def size(self) -> int: ...
    def told(self, values: Sequence[float]) -> list[list[float]]: ...
    def take_first_copy(self, part: Tensor, parameter: Tensor) -> None: ...


class Copies:
    """Of some parameters; all ranks make the same calls. `found()` looks, `unify()` is for averages."""

    def __init__(self, island: Told, parameters: list[Tensor]) -> None:
        self._island = island
        self._found = {id(p): p for p in parameters}

    @classmethod
    def found(cls, island: Told, parameters: Sequence[Tensor], held: Sequence[Tensor]) -> Copies:
        """DTensors by their placements, plain parameters where all ranks hold the same bits: a rank's
        experts, or its stage, may have the names of another's. held: each one's value, or part."""
        several = [p for p in parameters if copies(p, island.size) > 1]
        values = dict(zip(map(id, parameters), held, strict=True))
        plain = [p for p in several if not hasattr(p, "placements")]
        told = island.told([_hash(values[id(p)]) for p in plain]) if plain else []
        differ = {id(p) for place, p in enumerate(plain) if len({hashes[place] for hashes in told}) > 1}
        return cls(island, [p for p in several if id(p) not in differ])

    def unify(self, parts: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
        """parts: of these parameters, in place."""
        for part, parameter in zip(parts, parameters, strict=True):
            if id(parameter) in self._found:
                self._island.take_first_copy(part, parameter)


def _hash(value: Tensor) -> float:
    """As many bits as a float64 holds exactly."""
    data = value.detach().contiguous().reshape(-1).view(torch.uint8).cpu()
    return float(xxh3_64_intdigest(data.numpy().data) >> 12)


def copies(parameter: Any, size: int) -> int:
    """Ranks that hold the same elements, of an island of that size."""
    if hasattr(parameter, "placements"):
        kept = zip(parameter.placements, parameter.device_mesh.shape, strict=True)
        return math.prod(ranks for placement, ranks in kept if placement.is_replicate())
    flat = hasattr(parameter, "_fqns") or getattr(parameter, "_fsdp_flattened", False)  # FSDP1's
    return 1 if flat else size
