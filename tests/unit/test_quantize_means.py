"""Quantized means of 1 to 8 contributions, as all_reduce computes them, within the bounds that it states."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pccl_py import _core
from pccl_py.tensors import DTYPE_CODES
from tests.quantized_data import (
    BLOCKS,
    DTYPES,
    LEVELS,
    SHAPES,
    Array,
    block_ranges,
    mean_bound,
    rounded,
    sample,
)

KINDS = sorted(LEVELS)


def through(kind: str, values: Array, *, stochastic: bool, seed: int) -> Array:
    """Encoded and decoded; float16 and bfloat16 values are float32 on their way."""
    code, block = _core.QUANTIZATIONS[kind], BLOCKS.get(kind, 256)
    dtype = DTYPE_CODES[values.dtype.name]
    encoded = _core.quantize_encode(code, block, stochastic, dtype, values.data, seed)
    assert encoded is not None
    out = np.empty_like(values)
    _core.quantize_decode(code, block, dtype, encoded, out.data)
    return out


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shapes=st.lists(st.sampled_from(sorted(SHAPES)), min_size=1, max_size=8),
    count=st.integers(1, 700),
    stochastic=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
# They cancel.
@example(dtype="float32", shapes=["constant"] * 4 + ["heavy"], count=1, stochastic=False, seed=1)
def test_a_mean_is_off_by_one_quantum(
    kind: str, dtype: str, shapes: list[str], count: int, stochastic: bool, seed: int
) -> None:
    wide = np.float64 if dtype == "float64" else np.float32
    parts = [sample(shape, seed + i, count, dtype) for i, shape in enumerate(shapes)]
    sums = np.zeros(count, wide)
    for index, part in enumerate(parts):
        sums += through(kind, part.astype(wide), stochastic=stochastic, seed=seed + index)
    mean = through(kind, sums / wide(len(parts)), stochastic=stochastic, seed=seed + 99)
    block = BLOCKS.get(kind, 256)
    ranges = np.max([block_ranges(kind, part, block) for part in parts], axis=0)
    error = np.abs(rounded(mean, dtype) - np.mean(parts, axis=0))
    assert np.all(error <= mean_bound(kind, dtype, parts, ranges, stochastic=stochastic))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(shape=st.sampled_from(["normal", "negative", "outlier", "denormal"]), seed=st.integers(0, 2**32 - 1))
def test_stochastic_rounding_is_unbiased(kind: str, shape: str, seed: int) -> None:
    """The mean of n draws is within 6 standard deviations, each half a quantum at most."""
    values, tries = sample(shape, seed, 256, "float64"), 600
    draws = [through(kind, values, stochastic=True, seed=seed + i) for i in range(tries)]
    quantum = block_ranges(kind, values, BLOCKS.get(kind, 256)) / LEVELS[kind] * (1 + 2.0**-11)
    if kind == "bf16":
        quantum = np.abs(values) * 2.0**-7
    error = np.abs(np.mean(draws, axis=0) - values)
    assert np.all(error <= 6 * 0.5 * quantum / np.sqrt(tries) + np.abs(values) * 2.0**-13 + 2.0**-133)
    assert (
        abs(np.mean((np.mean(draws, axis=0) - values) / (quantum + 1e-300)))
        < 6 * 0.5 / np.sqrt(tries * 256) + 1e-3
    )


@pytest.mark.parametrize("kind", KINDS)
@given(
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    count=st.integers(1, 600),
    place=st.integers(0, 599),
    stochastic=st.booleans(),
)
def test_one_value_that_is_not_finite_is_always_seen(
    kind: str, bad: float, dtype: str, count: int, place: int, stochastic: bool
) -> None:
    values = np.linspace(-1, 1, count).astype(dtype)
    values[place % count] = bad
    code, block = _core.QUANTIZATIONS[kind], BLOCKS.get(kind, 256)
    assert _core.quantize_encode(code, block, stochastic, DTYPE_CODES[dtype], values.data) is None
