"""What changes for a model whose shards are on the ranks of an island: they must decide alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from xxhash import xxh3_64_intdigest

from .reduction import Comm


class Ranks:
    """Of this peer's island; one where it is none. What one rank finds out of its shard alone has to be
    told, or shards drift apart. All ranks make the same calls."""

    def __init__(self, comm: Comm) -> None:
        island: Any = comm
        self._island = island if hasattr(island, "local_shards") else None
        self.size = 1 if self._island is None else int(island.size)
        self._copied: list[bool] = []

    def all(self, found: bool) -> bool:
        """Whether it is so on all ranks."""
        return all(told[0] for told in self._told([float(found)]))

    def first(self, value: float) -> float:
        """What rank 0 has found: its clock is everybody's."""
        return self._told([float(value)])[0][0]

    def sums(self, squares: list[float], parameters: Sequence[torch.nn.Parameter]) -> list[float]:
        """Over the ranks, where each has a part of these parameters, or a copy."""
        if self.size == 1:
            return squares
        own = [s / copies(p, self.size) for s, p in zip(squares, parameters, strict=True)]
        return [math.fsum(parts) for parts in zip(*self._told(own), strict=True)]

    def find_copies(self, held: Sequence[Tensor], parameters: Sequence[torch.nn.Parameter]) -> None:
        """What all ranks hold: DTensors by their placements, plain parameters where all hold the same bits (a
        rank's experts, or its stage, may have the names of another's). held: each one's value, or part."""
        if self.size == 1:
            return
        several = [copies(p, self.size) > 1 for p in parameters]
        plain = [i for i, p in enumerate(parameters) if several[i] and not hasattr(p, "placements")]
        told = self._told([_hash(held[i]) for i in plain]) if plain else []
        differ = {i for place, i in enumerate(plain) if len({values[place] for values in told}) > 1}
        self._copied = [many and i not in differ for i, many in enumerate(several)]

    def unify(self, parts: Sequence[Tensor], parameters: Sequence[torch.nn.Parameter], first: int) -> None:
        """Averages of copies, which each rank has got with its own peers, become the same bits: quantization
        and the order of sums go by what lies around a copy. first: index of the first of these parameters."""
        if self._island is None or not any(self._copied):
            return
        for place, (part, parameter) in enumerate(zip(parts, parameters, strict=True), first):
            if self._copied[place]:
                self._island.take_first_copy(part, parameter)

    def _told(self, values: list[float]) -> list[list[float]]:
        return [values] if self.size == 1 or self._island is None else self._island.told(values)


def _hash(value: Tensor) -> float:
    """As many bits as a float64 holds exactly."""
    return float(xxh3_64_intdigest(value.contiguous().cpu().numpy().tobytes()) >> 12)


def copies(parameter: Any, size: int) -> int:
    """Ranks that hold the same elements, of an island of that size."""
    if hasattr(parameter, "placements"):
        kept = zip(parameter.placements, parameter.device_mesh.shape, strict=True)
        return math.prod(ranks for placement, ranks in kept if placement.is_replicate())
    flat = hasattr(parameter, "_fqns") or getattr(parameter, "_fsdp_flattened", False)  # FSDP1's
    return 1 if flat else size
