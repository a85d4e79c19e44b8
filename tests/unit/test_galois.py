"""`_core.galois_multiply_add` on numpy arrays, against a table of products; the kernels have C++ tests."""

from __future__ import annotations

import numpy as np
import pytest

from pccl_py import _core


def product(a: int, b: int) -> int:
    """Of polynomials over GF(2), modulo 0x11d."""
    result = 0
    for bit in range(8):
        result ^= (a << bit) * (b >> bit & 1)
    for bit in range(14, 7, -1):
        result ^= (0x11D << (bit - 8)) * (result >> bit & 1)
    return result


@pytest.mark.parametrize("factor", [0, 1, 2, 0x8E, 0xFF])
@pytest.mark.parametrize("count", [0, 1, 1000, 65537])
def test_sums_of_products(factor: int, count: int) -> None:
    generator = np.random.default_rng(count + factor)
    data = generator.integers(0, 256, count, np.uint8)
    sums = generator.integers(0, 256, count, np.uint8)
    products = np.array([product(value, factor) for value in range(256)], np.uint8)
    expected = sums ^ products[data]
    _core.galois_multiply_add(sums, data, factor)
    np.testing.assert_array_equal(sums, expected)


def test_buffers_that_do_not_match_are_refused() -> None:
    bytes_ = np.zeros(100, np.uint8)
    with pytest.raises(ValueError, match="sizes do not match"):
        _core.galois_multiply_add(bytes_, np.zeros(99, np.uint8), 1)
    with pytest.raises(ValueError, match="overlap"):
        _core.galois_multiply_add(bytes_[:50], bytes_[20:70], 1)
    with pytest.raises(TypeError):
        _core.galois_multiply_add(bytes_, bytes_, 256)
    _core.galois_multiply_add(bytes_, bytes_, 1)
