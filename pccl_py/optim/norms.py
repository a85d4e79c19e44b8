"""Norms with the same bits on every machine: sums in an order that no vector unit or thread count changes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CHUNK = 1 << 18


def exact_norm(flat: Tensor) -> float:
    """L2 norm of float32 [n]."""
    return math.sqrt(exact_square(flat))


@torch.no_grad()
def exact_square(flat: Tensor) -> float:
    """Of the L2 norm. Squares are exact in float64; halves are added elementwise, chunk by chunk."""
    total = 0.0
    for chunk in torch.split(flat, _CHUNK):
        squares = chunk.double().square_()
        while squares.numel() > 1:
            half = squares.numel() // 2
            rest = squares[2 * half :].clone()
            squares = squares[:half] + squares[half : 2 * half]
            squares[: rest.numel()] += rest
        total += float(squares.sum())
    return total
