"""Data whose sum is exact: random whole numbers of any dtype that holds their sums over 16 peers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
TILE = 1 << 20  # elements
WHOLE_MAX = 1 << 19  # sums of up to 16 peers stay below 2**24, so they are exact
# Of dtypes that hold less: what 16 of them add up to is exact in each.
_SMALLER = {"float16": 127, "bfloat16": 15, "int8": 7, "uint8": 15, "int16": 2047, "uint16": 2047}
_BFLOAT16 = "bfloat16"  # numpy has none: its 16 bits are stored


def stored_type(dtype: str) -> np.dtype[Any]:
    """How numpy stores the dtype."""
    return np.dtype(np.uint16 if dtype == _BFLOAT16 else dtype)


def stored(values: Array, dtype: str) -> Array:
    """Numbers as elements of `dtype`; for bfloat16 they are exact ones, as whole ones up to 256."""
    if dtype == _BFLOAT16:
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(dtype)


def tile(peer: int, count: int, dtype: str = "float32") -> Array:
    """The first `count` elements (TILE at most) of what `peer` contributes; longer tensors repeat it.
    Random, since memory of zeros, or of one value, is read faster on some machines."""
    return stored(numbers(peer, count, dtype), dtype)


def sum_of(peers: Iterable[int], count: int, dtype: str = "float32") -> Array:
    """The tile that all of them add up to."""
    return stored(np.sum([numbers(peer, count, dtype) for peer in peers], axis=0), dtype)


def numbers(peer: int, count: int, dtype: str) -> Any:
    """As tile(), whole numbers of 64 bits."""
    most = _SMALLER.get(dtype, WHOLE_MAX)
    least = 0 if dtype.startswith("uint") else -most
    return np.random.default_rng(peer).integers(least, most, min(count, TILE))


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
