"""Data that is likely to break a quantized average, and how far off one may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, np.dtype[Any]]

# Of R: the quantum of the worst element.
LEVELS = {"int8": 254.0, "uint8": 255.0, "int4": 14 / (1 + 2**-7), "fp8": 28.0, "bf16": 256.0}
BLOCKS = {"int4": 64}
DTYPES = ("float32", "float64", "float16", "bfloat16")
# Smallest normal number, and what rounding to the dtype costs relative to a value.
SMALLEST = {"float32": 2.0**-126, "float64": 2.0**-1022, "float16": 2.0**-14, "bfloat16": 2.0**-126}
EPSILON = {"float32": 2.0**-23, "float64": 2.0**-52, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def _outlier(rng: np.random.Generator, n: int, _: str) -> Array:
    return np.where(np.arange(n) == n // 3, 1e4, rng.standard_normal(n))


def _denormal(rng: np.random.Generator, n: int, dtype: str) -> Array:
    return rng.uniform(-1, 1, n) * SMALLEST[dtype]


SHAPES = {
    "normal": lambda rng, n, _: rng.standard_normal(n),
    "heavy": lambda rng, n, _: rng.standard_t(3, n),
    "constant": lambda rng, n, _: np.full(n, rng.standard_normal()),
    "negative": lambda rng, n, _: -np.abs(rng.standard_normal(n)) - 3,
    "outlier": _outlier,
    "denormal": _denormal,
    "zeros": lambda rng, n, _: np.zeros(n),
    "one sign each": lambda rng, n, _: np.full(n, rng.choice([-1.0, 1.0])) * rng.uniform(0.1, 1, n),
}


def rounded(values: Array, dtype: str) -> Array:
    """In float64: the nearest values of `dtype`."""
    tensor = torch.from_numpy(np.ascontiguousarray(values, np.float64))
    return np.asarray(tensor.to(getattr(torch, dtype)).double().numpy())


def sample(shape: str, seed: int, count: int, dtype: str) -> Array:
    """Values of `dtype`, in float64."""
    return rounded(SHAPES[shape](np.random.default_rng(seed), count, dtype), dtype)


def block_ranges(kind: str, values: Array, block: int) -> Array:
    """R of each element's block: 2 * the largest magnitude, for uint8 largest - smallest."""
    result = np.empty(len(values))
    for begin in range(0, len(values), block):
        part = values[begin : begin + block]
        result[begin : begin + block] = np.ptp(part) if kind == "uint8" else 2 * np.abs(part).max()
    return result


def mean_bound(
    kind: str, dtype: str, contributions: list[Array], ranges: Array, *, stochastic: bool
) -> Array:
    """How far from the exact mean each element of a quantized one may be. `ranges`: the largest R there.

    One quantum (two, if stochastic), however many peers; and what sums, scales and results of `dtype` round:
    partial sums may be far larger than a mean in which they cancel.
    """
    wide = EPSILON["float64" if dtype == "float64" else "float32"]
    exact = np.abs(np.mean(contributions, axis=0))
    smallest_scale = 2.0**-133 if dtype != "float64" or kind == "bf16" else 0.0
    quanta = (2 if stochastic else 1) * (ranges / LEVELS[kind] + smallest_scale) * (1 + 2.0**-11)
    sums = (len(contributions) + 1) * wide * (np.mean(np.abs(contributions), axis=0) + ranges)
    return np.asarray(quanta + sums + EPSILON[dtype] / 2 * (exact + quanta + SMALLEST[dtype]))
