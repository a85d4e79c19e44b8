"""What changes for a model whose shards are on the ranks of an island: they must decide alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from .reduction import Comm


class Ranks:
    """Of this peer's island; one where it is none. What one rank finds out of its shard alone has to be
    told, or shards drift apart. All ranks make the same calls."""

    def __init__(self, comm: Comm) -> None:
        island: Any = comm
        self._island = island if hasattr(island, "local_shards") else None
        self.size = 1 if self._island is None else int(island.size)

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

    def _told(self, values: list[float]) -> list[list[float]]:
        return [values] if self.size == 1 or self._island is None else self._island.told(values)


def copies(parameter: Any, size: int) -> int:
    """Ranks that hold the same elements, of an island of that size."""
    if hasattr(parameter, "placements"):
        kept = zip(parameter.placements, parameter.device_mesh.shape, strict=True)
        return math.prod(ranks for placement, ranks in kept if placement.is_replicate())
    flat = hasattr(parameter, "_fqns") or getattr(parameter, "_fsdp_flattened", False)  # FSDP1's
    return 1 if flat else size
