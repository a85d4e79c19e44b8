"""How far a quantized average may be from the exact one: arithmetic on the contributions alone.

R is what the codes of a block spread over, the largest of all contributions; R/L the distance of two codes.
An average of P contributions, each encoded once, whose sum is encoded once more, is off by at most R/L, and
by R/(L sqrt(6P)) in the mean square where errors are independent.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
STEPS = {"int8": 254.0, "uint8": 255.0, "int4": 14.0 / (1 + 2.0**-7), "fp8": 28.0}  # L
BLOCKS = {"int4": 64}
BLOCK = 256
_ROUNDING = 2.0**-12  # of a quantum, and
_LAST_PLACE = 2.0**-21  # of the largest magnitude: what float32 arithmetic rounds


def bounds(kind: str, contributions: Array, aligned: bool) -> Array:
    """For each element, the largest error of the average: contributions are float32[peers, elements].
    `aligned`: blocks begin with the first element; else anywhere. Kind "none": of float32 sums."""
    largest = np.abs(contributions).max(0).astype(np.float64)
    if kind == "none":
        return np.asarray(largest * contributions.shape[0] * 2.0**-23)
    if kind == "bf16":
        quantum = 2.0**-7 * 2.0 ** np.floor(np.log2(np.maximum(largest, np.finfo(np.float32).tiny)))
    else:
        quantum = _spread(kind, contributions, aligned) / STEPS[kind]
    return np.asarray(quantum * (1 + _ROUNDING) + largest * _LAST_PLACE)


def rms(kind: str, bound: Array, peers: int) -> float:
    """Of errors that are independent and spread evenly."""
    whole = math.sqrt(float(np.mean(bound**2)))
    return whole if kind == "none" else whole / math.sqrt(6 * peers)


def _spread(kind: str, contributions: Array, aligned: bool) -> Array:
    """R for each element."""
    block = BLOCKS.get(kind, BLOCK)
    peers, count = contributions.shape
    padded = np.pad(contributions, ((0, 0), (0, -count % block)), mode="edge")
    blocks = padded.reshape(peers, -1, block)
    low, high = blocks.min(2), blocks.max(2)
    if not aligned:  # the block that holds it may hold a part of either neighbour
        low = np.minimum(low, np.minimum(np.roll(low, 1, 1), np.roll(low, -1, 1)))
        high = np.maximum(high, np.maximum(np.roll(high, 1, 1), np.roll(high, -1, 1)))
    spread = high - low if kind == "uint8" else 2 * np.maximum(np.abs(low), np.abs(high))
    return np.repeat(spread.max(0).astype(np.float64), block)[:count]
