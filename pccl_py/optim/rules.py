"""How an average becomes an outer step: radial-directional averages, penalties for staleness, clipping.

Each is a pure function of the average and of the outer state, computed with the same bits on all peers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .norms import exact_norm

EPSILON = 1e-12


@dataclass(frozen=True)
class Rules:
    """merge: "mean" | "rda"; gap: the penalty of CO2; clip: its threshold, or None."""

    merge: str = "mean"
    gap: bool = False
    clip: float | None = None

    @property
    def needs_old(self) -> bool:
        """Whether finish() takes the parameters before the step: a copy of the fragment."""
        return self.gap or self.clip is not None


def directions(delta: list[Tensor], exempt: list[bool]) -> Tensor:
    """Replaces each tensor by its direction, and returns their norms, float64 [tensors]; 1 where exempt."""
    norms = torch.ones(len(delta), dtype=torch.float64)
    for index, (tensor, skip) in enumerate(zip(delta, exempt, strict=True)):
        if not skip:
            norms[index] = exact_norm(tensor.reshape(-1))
            tensor.div_(max(float(norms[index]), EPSILON))
    return norms


def radial(average: list[Tensor], norms: list[float], exempt: list[bool]) -> None:
    """Radial-directional averages (arXiv 2604.21428): the mean norm times the direction of the mean
    direction, per tensor. `average`: of directions; `norms`: the (weighted) mean norms."""
    for tensor, norm, skip in zip(average, norms, exempt, strict=True):
        if not skip:
            length = exact_norm(tensor.reshape(-1))
            tensor.mul_(norm / length if length > EPSILON else 0.0)


def gap_penalty(average: Tensor, gap: float) -> float:
    """1 / Lambda with Lambda = 1 + gap / |g|, gap: from where the average was measured to where it is applied
    (CO2, arXiv 2401.16265). `average` is multiplied by it."""
    norm = exact_norm(average)
    factor = norm / (norm + gap) if norm > 0 else 1.0
    average.mul_(factor)
    return factor


def clip_update(new: Tensor, old: Tensor, limit: float) -> tuple[float, float]:
    """Shortens the step from `old` to `new` to the length `limit`. Its length before and after."""
    update = new - old
    norm = exact_norm(update)
    if norm > limit:
        torch.add(old, update, alpha=limit / norm, out=new)
    return norm, min(norm, limit)
