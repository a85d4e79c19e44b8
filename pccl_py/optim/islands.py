"""What changes for a model whose shards are on the ranks of an island: they must decide alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..parallel.copies import Copies, copies
from .reduction import Comm


class Ranks:
    """Of this peer's island; one where it is none. What one rank finds out of its shard alone has to be
    told, or shards drift apart. All ranks make the same calls."""

    def __init__(self, comm: Comm) -> None:
        island: Any = comm
        self._island = island if hasattr(island, "local_shards") else None
        self.size = 1 if self._island is None else int(island.size)
        self._copies: Copies | None = None

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
        """held: each one's value, or part."""
        self._copies = None if self._island is None else Copies.found(self._island, parameters, held)

    def unify(self, parts: Sequence[Tensor], parameters: Sequence[torch.nn.Parameter]) -> None:
        """Averages of copies, which each rank has got with its own peers, become the same bits."""
        if self._copies is not None:
            self._copies.unify(parts, parameters)

    def _told(self, values: list[float]) -> list[list[float]]:
        return [values] if self.size == 1 or self._island is None else self._island.told(values)
