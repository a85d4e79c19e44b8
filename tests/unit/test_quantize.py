"""The quantization codec through the binding: error bounds, layout and refusals on arbitrary arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pccl_py import _core
from pccl_py.tensors import DTYPE_CODES
from tests.quantized_data import BLOCKS, LEVELS

Array = np.ndarray[Any, np.dtype[Any]]
KINDS = [kind for kind in _core.QUANTIZATIONS if kind != "none"]


def encode(kind: str, data: Array, *, stochastic: bool = False, seed: int = 0) -> bytes | None:
    code, block = _core.QUANTIZATIONS[kind], BLOCKS.get(kind, 256)
    dtype = DTYPE_CODES[data.dtype.name]
    encoded: bytes | None = _core.quantize_encode(code, block, stochastic, dtype, data.data, seed)
    return encoded


def decode(kind: str, encoded: bytes, like: Array) -> Array:
    out = np.empty_like(like)
    block = BLOCKS.get(kind, 256)
    _core.quantize_decode(_core.QUANTIZATIONS[kind], block, DTYPE_CODES[like.dtype.name], encoded, out.data)
    return out


def ranges(kind: str, data: Array) -> Array:
    """R of each element's block, in float64."""
    result = np.empty(data.size)
    block = BLOCKS.get(kind, 256)
    for begin in range(0, data.size, block):
        part = data[begin : begin + block].astype(np.float64)
        low_to_high = part.max() - part.min()
        result[begin : begin + block] = low_to_high if kind == "uint8" else 2 * np.abs(part).max()
    return result


FLOATS = st.floats(width=32, min_value=-(2.0**100), max_value=2.0**100)
ARRAYS = arrays.arrays(np.float32, st.integers(0, 700), elements=FLOATS, fill=st.just(0.5))


@pytest.mark.parametrize("kind", KINDS)
@given(data=ARRAYS, stochastic=st.booleans(), seed=st.integers(0, 2**64 - 1))
def test_off_by_half_a_quantum(kind: str, data: Array, stochastic: bool, seed: int) -> None:
    encoded = encode(kind, data, stochastic=stochastic, seed=seed)
    assert encoded is not None
    assert encoded == encode(kind, data, stochastic=stochastic, seed=seed)
    share = (1.0 if stochastic else 0.5) * (1 + 2**-11)
    bound = share * (ranges(kind, data) / LEVELS[kind] + 2.0**-133) + np.abs(data.astype(np.float64)) * 2**-23
    error = np.abs(decode(kind, encoded, data).astype(np.float64) - data)
    assert np.all(error <= bound)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_not_finite(kind: str, bad: float, dtype: Any) -> None:
    data = np.ones(300, dtype)
    assert encode(kind, data) is not None
    data[299] = bad
    assert encode(kind, data) is None


def test_sizes() -> None:
    sizes = {kind: len(encode(kind, np.ones(1000, np.float32)) or b"") for kind in KINDS}
    assert sizes == {"int8": 1016, "uint8": 1032, "int4": 532, "fp8": 1016, "bf16": 2000}


def test_refused() -> None:
    data: Any = np.ones(8, np.float32)
    with pytest.raises(ValueError, match="no such code"):
        _core.quantize_encode(1, 256, False, 1, data)
    with pytest.raises(ValueError, match="no such code"):
        _core.quantize_encode(2, 100, False, 1, data)
    with pytest.raises(ValueError, match="not contiguous"):
        _core.quantize_encode(2, 256, False, 1, data[::2])
    with pytest.raises(ValueError, match="sizes do not match"):
        _core.quantize_decode(2, 256, 1, b"1234", data)
