"""Against independent codecs, where they are installed: zfec, and ISA-L inside pyeclib.

Their matrices are other ones, but over the same field: what they make of unit vectors is their matrix, and
our kernels with it have to give their parities, on every instruction set. Our own code in turn is what ISA-L
makes of our coefficients.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from pccl_py.erasure import ReedSolomon, native

CODES = [(2, 1), (4, 2), (10, 4)]
SIZE = 4096
Array = np.ndarray[Any, np.dtype[np.uint8]]


def blocks_of(k: int) -> Array:
    return np.random.default_rng(k).integers(0, 256, (k, SIZE), np.uint8)


def addresses(blocks: Array) -> list[int]:
    return [block.ctypes.data for block in blocks]


def ours(matrix: Array, data: Array, level: str) -> Array:
    parity = np.zeros((len(matrix), SIZE), np.uint8)
    native.galois_encode(addresses(parity), addresses(data), matrix.tobytes(), SIZE, level=level)
    return parity


def zfec_parities(data: Array, m: int) -> Array:
    zfec = pytest.importorskip("zfec", reason="zfec is not installed: pip install zfec")
    k = len(data)
    coded = zfec.Encoder(k, k + m).encode([block.tobytes() for block in data], tuple(range(k, k + m)))
    return np.array([np.frombuffer(block, np.uint8) for block in coded])


def pyeclib_parities(data: Array, m: int) -> Array:
    pytest.importorskip("pyeclib", reason="pyeclib is not installed: pip install pyeclib")
    from pyeclib.ec_iface import ECDriver

    fragments = ECDriver(k=len(data), m=m, ec_type="isa_l_rs_cauchy").encode(data.tobytes())
    header = len(fragments[0]) - SIZE
    return np.array([np.frombuffer(fragment[header:], np.uint8) for fragment in fragments[len(data) :]])


@pytest.mark.parametrize("parities", [zfec_parities, pyeclib_parities])
@pytest.mark.parametrize(("k", "m"), CODES)
def test_their_matrix_gives_their_parities(parities: Any, k: int, m: int) -> None:
    units = np.zeros((k, SIZE), np.uint8)
    units[np.arange(k), np.arange(k)] = 1
    matrix = np.ascontiguousarray(parities(units, m)[:, :k])
    data = blocks_of(k)
    expected = parities(data, m)
    for level in native.galois_levels():
        np.testing.assert_array_equal(ours(matrix, data, level), expected)


@pytest.mark.parametrize(("k", "m"), CODES)
def test_isal_gives_our_parities(k: int, m: int) -> None:
    from pccl_py.bench.erasure_others import IsaL, missing

    if reason := missing("isal"):
        pytest.skip(reason)
    rs, data = ReedSolomon(k, m), blocks_of(k)
    parity = np.zeros((m, SIZE), np.uint8)
    factors = bytes(rs.coefficient(row, slot) for row in range(m) for slot in range(k))
    IsaL().combination(factors, addresses(parity), addresses(data))(0, SIZE)
    np.testing.assert_array_equal(parity, rs.encode(data))


@pytest.mark.skipif(find_spec("zfec") is None, reason="zfec is not installed: pip install zfec")
def test_zfec_with_one_parity_is_no_exclusive_or() -> None:
    """So that nobody takes the two for compatible."""
    data = blocks_of(3)
    assert not np.array_equal(zfec_parities(data, 1), ReedSolomon(3, 1).encode(data))
