"""How an average becomes an outer step: radial-directional averages, penalties for staleness, clipping.

Each is a pure function of the average and of the outer state, computed with the same bits on all peers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .norms import exact_square

EPSILON = 1e-12
Joint = Callable[[list[float]], list[float]]  # sums of squares of what is here -> of the whole tensors


def alone(squares: list[float]) -> list[float]:
    """Every tensor is whole here."""
    return squares


@dataclass(frozen=True)
class Rules:
    """merge: "mean" | "rda"; gap: the penalty of CO2; clip: its threshold, or None; shares: a delta counts
    for its weight among all peers, those included whose deltas are late."""

    merge: str = "mean"
    gap: bool = False
    clip: float | None = None
    shares: bool = False

    @property
    def needs_old(self) -> bool:
        """Whether finish() takes the parameters before the step: a copy of the fragment."""
        return self.gap or self.clip is not None


def lengths(tensors: list[Tensor], joint: Joint) -> list[float]:
    return [math.sqrt(square) for square in joint([exact_square(t.reshape(-1)) for t in tensors])]


def directions(delta: list[Tensor], exempt: list[bool], joint: Joint = alone) -> list[float]:
    """Replaces each tensor by its direction, and returns their norms; 1 where exempt."""
    norms = [1.0 if skip else norm for norm, skip in zip(lengths(delta, joint), exempt, strict=True)]
    divide(delta, norms)
    return norms


def divide(delta: list[Tensor], norms: list[float]) -> None:
    """Each tensor by what directions() has found for it; nothing without norms."""
    for tensor, norm in zip(delta, norms, strict=False):
        if norm != 1.0:
            tensor.div_(max(norm, EPSILON))


def radial(average: list[Tensor], norms: list[float], exempt: list[bool], joint: Joint = alone) -> None:
    """Radial-directional averages (arXiv 2604.21428): the mean norm times the direction of the mean
    direction, per tensor. `average`: of directions; `norms`: the (weighted) mean norms."""
    now = lengths(average, joint)
    for tensor, norm, length, skip in zip(average, norms, now, exempt, strict=True):
        if not skip:
            tensor.mul_(norm / length if length > EPSILON else 0.0)


def gap_penalty(average: Tensor, norm: float, gap: float) -> float:
    """1 / Lambda with Lambda = 1 + gap / |g|, gap: from where the average was measured to where it is applied
    (CO2, arXiv 2401.16265). `average` is multiplied by it; norm: its length."""
    factor = norm / (norm + gap) if norm > 0 else 1.0
    average.mul_(factor)
    return factor


def clip_update(
    new: Tensor, old: Tensor, limit: float, norm_of: Callable[[Tensor], float]
) -> tuple[float, float]:
    """Shortens the step from `old` to `new` to the length `limit`. Its length before and after."""
    update = new - old
    norm = norm_of(update)
    if norm > limit:
        torch.add(old, update, alpha=limit / norm, out=new)
    return norm, min(norm, limit)
