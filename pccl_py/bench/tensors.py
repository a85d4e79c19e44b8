"""Data whose sum is exact: random whole numbers as floats that hold their sums."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float32]]
TILE = 1 << 20  # elements
WHOLE_MAX = 1 << 19  # sums of up to 16 peers stay below 2**24, so they are exact


def tile(peer: int, count: int) -> Array:
    """The first `count` elements (TILE at most) of what `peer` contributes; longer tensors repeat it.
    Random, since memory of zeros, or of one value, is read faster on some machines."""
    random = np.random.default_rng(peer)
    return random.integers(-WHOLE_MAX, WHOLE_MAX, min(count, TILE)).astype(np.float32)


def fill(array: Array, pattern: Array) -> None:
    for begin in range(0, array.size, pattern.size):
        part = array[begin : begin + pattern.size]
        part[:] = pattern[: part.size]


def holds(array: Array, pattern: Array) -> bool:
    """Whether every element is that of the repeated pattern."""
    for begin in range(0, array.size, pattern.size):
        part = array[begin : begin + pattern.size]
        if not np.array_equal(part, pattern[: part.size]):
            return False
    return True
