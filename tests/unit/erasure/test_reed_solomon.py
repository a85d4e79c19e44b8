"""`ReedSolomon` on numpy and torch memory, against a slow one; hypothesis picks shapes and losses."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pccl_py
from pccl_py import UsageError
from pccl_py.erasure import ReedSolomon

from . import field

Array = np.ndarray[Any, Any]
codes = st.tuples(st.integers(1, 12), st.integers(1, 6))
lengths = st.integers(0, 300)
fast = settings(max_examples=40, deadline=None)


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).integers(0, 256, shape, np.uint8)


@fast
@given(codes, lengths, st.randoms(use_true_random=False))
def test_parities_and_any_k_blocks(code: tuple[int, int], length: int, random: Any) -> None:
    k, m = code
    rs, data = ReedSolomon(k, m), noise(k, length, seed=random.randrange(1 << 30))
    parity = rs.encode(data)
    expected = field.combine(field.generator(k, m)[k:], data)
    np.testing.assert_array_equal(parity, expected)
    whole = [*data, *parity]
    present = random.sample(range(k + m), random.randint(k, k + m))
    shards = [block.copy() if i in present else noise(length, seed=9) for i, block in enumerate(whole)]
    assert rs.decode(shards, present) == tuple(i for i in range(k + m) if i not in present)
    for found, block in zip(shards, whole, strict=True):
        np.testing.assert_array_equal(found, block)


@fast
@given(codes, st.randoms(use_true_random=False))
def test_rows_of_lost_blocks_are_gauss_solutions(code: tuple[int, int], random: Any) -> None:
    k, m = code
    rs, generator = ReedSolomon(k, m), field.generator(k, m)
    present = sorted(random.sample(range(k + m), k))
    for lost in set(range(k + m)) - set(present):
        factors = rs.decode_row(present, lost)
        assert sorted(factors) == present
        row = np.array([[factors[block] for block in present]], np.uint8)
        np.testing.assert_array_equal(field.combine(row, generator[present]), generator[[lost]])


@fast
@given(codes, st.integers(1, 200), st.randoms(use_true_random=False))
def test_changes_of_parts(code: tuple[int, int], length: int, random: Any) -> None:
    k, m = code
    rs, data = ReedSolomon(k, m), noise(k, length)
    parity = rs.encode(data)
    slot, first = random.randrange(k), random.randrange(length)
    part = slice(first, random.randint(first, length))
    new = noise(part.stop - part.start, seed=1)
    rs.update([row[part] for row in parity], slot, data[slot, part], new)
    data[slot, part] = new
    np.testing.assert_array_equal(parity, rs.encode(data))


@fast
@given(codes, st.integers(1, 200), st.randoms(use_true_random=False))
def test_wrong_blocks_are_named(code: tuple[int, int], length: int, random: Any) -> None:
    k, m = code
    rs, data = ReedSolomon(k, m), noise(k, length)
    parity = rs.encode(data)
    assert rs.verify(data, parity)
    wrong = sorted(random.sample(range(k + m), random.randint(1, max(1, m // 2))))
    for block in wrong:
        ([*data, *parity][block])[random.randrange(length)] ^= random.randint(1, 255)
    verdict = rs.verify(data, parity)
    assert not verdict
    assert verdict.wrong == (tuple(wrong) if 2 * len(wrong) <= m else None)


def test_coefficients_are_nested_and_start_with_exclusive_or() -> None:
    many = ReedSolomon(200, 56)
    for row in range(56):
        assert [many.coefficient(row, slot) for slot in range(200)] == [
            field.coefficient(row, slot) for slot in range(200)
        ]
    assert {many.coefficient(0, slot) for slot in range(200)} == {1}
    assert {many.coefficient(row, 0) for row in range(56)} == {1}
    data = noise(5, 1000)
    np.testing.assert_array_equal(ReedSolomon(5, 1).encode(data)[0], np.bitwise_xor.reduce(data))
    np.testing.assert_array_equal(ReedSolomon(5, 3).encode(data)[:2], ReedSolomon(5, 2).encode(data))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_and_one_pass_give_the_same(threads: int) -> None:
    rs, data = ReedSolomon(4, 2), noise(4, 500_001)
    expected = rs.encode(data)
    np.testing.assert_array_equal(rs.encode(data, threads=threads), expected)
    copies, parity = np.zeros_like(data), np.zeros_like(expected)
    sums = rs.encode_copying(data, copies, parity, threads=threads)
    np.testing.assert_array_equal(copies, data)
    np.testing.assert_array_equal(parity, expected)
    assert sums == tuple(pccl_py.erasure.crc32c(block) for block in data)
    to = np.zeros(500_001, np.uint8)
    assert pccl_py.erasure.copy_crc32c(to, data[1], threads=threads) == sums[1]
    np.testing.assert_array_equal(to, data[1])


def test_crc32c() -> None:
    text = np.frombuffer(b"123456789", np.uint8)
    crc32c, combine = pccl_py.erasure.crc32c, pccl_py.erasure.crc32c_combine
    assert crc32c(text) == 0xE3069283
    first, second = crc32c(text[:4]), crc32c(text[4:])
    assert crc32c(text[4:], first) == combine(first, second, 5) == 0xE3069283


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_torch_memory_of_any_dtype() -> None:
    import torch

    rs = ReedSolomon(3, 2)
    data = [torch.randn(50, 2), torch.arange(100, dtype=torch.int32), torch.zeros(200, dtype=torch.bfloat16)]
    parity = rs.encode(data)
    lost = [
        torch.zeros(50, 2),
        data[1],
        torch.ones(200, dtype=torch.bfloat16),
        *map(torch.from_numpy, parity),
    ]
    assert rs.decode(lost, [1, 3, 4]) == (0, 2)
    assert torch.equal(lost[0], data[0]) and torch.equal(lost[2], data[2])
    with pytest.raises(UsageError, match="not contiguous"):
        rs.encode(torch.zeros(6, 4).t())
    with pytest.raises(UsageError, match="meta"):
        rs.encode(torch.zeros(6, device="meta"))


def readonly(array: Array) -> Array:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda rs: rs.encode(noise(10)), "no multiple of 3"),
        (lambda rs: rs.encode([noise(4)] * 2), "2 blocks; this code takes 3"),
        (lambda rs: rs.encode([noise(4), noise(4), noise(5)]), r"data\[2\] has 5 bytes and data\[0\] 4"),
        (lambda rs: rs.encode([noise(4), None, noise(4)]), r"data\[1\] is None"),
        (lambda rs: rs.encode(noise(3, 8)[:, ::2]), "not contiguous"),
        (lambda rs: rs.encode(noise(3, 4), readonly(noise(2, 4))), "read-only"),
        (lambda rs: rs.encode(noise(3, 4), noise(2, 5)), r"parity\[0\] has 5 bytes"),
        (lambda rs: rs.encode(b"123456"), "is a bytes; pass a numpy array"),
        (lambda rs: rs.encode(np.array([object()] * 3)), "no plain bytes"),
        (lambda rs: rs.encode(noise(3, 4), threads=0), "threads 0"),
        (lambda rs: rs.encode((b := noise(5, 4))[:3], b[2:4]), "share memory"),
        (lambda rs: rs.update(noise(2, 4), 3, noise(4), noise(4)), "slot 3: it is a whole number"),
        (lambda rs: rs.update(noise(2, 4), 1, noise(4), noise(3)), "new has 3 bytes"),
        (lambda rs: rs.decode(noise(5, 4), [0, 4]), r"2 of 5 blocks are present; .* any 3"),
        (lambda rs: rs.decode(noise(5, 4), [0, 1, 1, 2]), "twice"),
        (lambda rs: rs.decode(noise(5, 4), [0, 1, 5]), "present block 5"),
        (lambda rs: rs.decode(readonly(noise(5, 4)), [0, 1, 2]), "read-only"),
        (lambda rs: rs.decode([None, *noise(4, 4)], [0, 1, 2]), r"present shards\[0\] is None"),
        (lambda rs: rs.decode_row([0, 1, 2], 2), "needs no rebuilding"),
        (lambda rs: rs.decode_row([0, 1], 2), "2 of 5 blocks"),
        (lambda rs: rs.coefficient(2, 0), "row 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_says_so(call: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call(ReedSolomon(3, 2))


@pytest.mark.parametrize("code", [(0, 1), (1, 0), (255, 2), (-1, 2), (2.0, 1), (True, 1)])
def test_codes_that_do_not_exist(code: Any) -> None:
    with pytest.raises(UsageError):
        ReedSolomon(*code)


def test_names_at_the_top() -> None:
    assert pccl_py.ReedSolomon is ReedSolomon
    assert pccl_py.survival_probability is pccl_py.erasure.survival_probability
    assert pccl_py.choose_code is pccl_py.erasure.choose_code
