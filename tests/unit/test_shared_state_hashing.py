"""SharedState: what is hashed, that equal content means equal hashes, and what is refused."""

from __future__ import annotations

import os
import struct
import time
from typing import Any

import numpy as np
import pytest
import torch
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pccl_py import SharedState, UsageError
from pccl_py.hashing import CHUNK_BYTES, DIGEST_BYTES, address_of, chunks_of, hash_all, memory, root_of
from pccl_py.tensors import DTYPE_CODES


def hashed(tensor: Any) -> tuple[str, bytes, bytes]:
    """(name, digests, root) of a state of one tensor."""
    (entry,) = SharedState({"t": tensor}).entries()
    hash_all([(entry.memory, entry.digests)])
    return entry.name, bytes(entry.digests), entry.root()


def expected(data: bytes, code: int, count: int) -> tuple[bytes, bytes]:
    """Straight from the definition: one digest per MiB, one root over them."""
    parts = [data[begin : begin + (1 << 20)] for begin in range(0, len(data), 1 << 20)]
    digests = b"".join(xxhash.xxh3_128_digest(part) for part in parts)
    return digests, xxhash.xxh3_128_digest(struct.pack("<BQ", code, count) + digests)


SIZES = [0, 1, 1000, CHUNK_BYTES // 4, CHUNK_BYTES // 4 + 1, 3 * CHUNK_BYTES, 9 * CHUNK_BYTES + 1]


@pytest.mark.parametrize("count", SIZES)
def test_hash_is_its_definition(count: int) -> None:
    tensor = np.random.default_rng(count).normal(size=count).astype(np.float32)
    assert hashed(tensor)[1:] == expected(tensor.tobytes(), DTYPE_CODES["float32"], count)
    assert len(hashed(tensor)[1]) == DIGEST_BYTES * chunks_of(tensor.nbytes)


dtypes = st.sampled_from(["f4", "f8", "f2", "i1", "i8", "u2", "?", "c8", ">f4", "S3"])
any_array = dtypes.flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6))
)


@given(any_array, st.integers(0, 7))
def test_memory_layout_does_not_matter(array: np.ndarray[Any, Any], offset: int) -> None:
    """The same values at any alignment, with any strides, have the same name and the same hash."""
    raw = np.zeros(array.nbytes + 8, np.uint8)
    unaligned = raw[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)
    unaligned[...] = array
    strided = np.zeros((*array.shape, 2), array.dtype)[..., 0]
    strided[...] = array
    fortran = np.array(array, order="F")
    assert hashed(array) == hashed(unaligned) == hashed(strided) == hashed(fortran)
    code = DTYPE_CODES.get(array.dtype.name) if array.dtype.isnative else None
    wanted = (code, array.size) if code else (DTYPE_CODES["uint8"], array.nbytes)
    assert hashed(array)[1:] == expected(array.tobytes(), *wanted)


@given(st.integers(0, 5 * CHUNK_BYTES - 1), st.integers(1, 255))
@settings(max_examples=30)
def test_one_byte_changes_one_digest_and_the_root(position: int, change: int) -> None:
    data = np.zeros(5 * CHUNK_BYTES, np.uint8)
    _, before, root = hashed(data)
    data[position] ^= change
    _, after, other_root = hashed(data)
    differ = [i for i in range(5) if before[16 * i : 16 * i + 16] != after[16 * i : 16 * i + 16]]
    assert differ == [position // CHUNK_BYTES]
    assert root != other_root


def test_root_tells_dtype_and_count_apart() -> None:
    zeros = bytes(DIGEST_BYTES)
    roots = {root_of(zeros, code, count) for code in range(1, 13) for count in range(100)}
    assert len(roots) == 1200


def test_numpy_and_torch_agree() -> None:
    array = np.arange(1000, dtype=np.float32).reshape(10, 100)
    assert hashed(array) == hashed(torch.from_numpy(array.copy()))
    assert hashed(array) == hashed(torch.from_numpy(array.copy()).t().contiguous().t())
    assert hashed(np.array([True, False])) == hashed(torch.tensor([True, False]))
    assert hashed(array)[0] == "t float32[10, 100]"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.complex64, torch.bool])
def test_torch_dtypes(dtype: torch.dtype) -> None:
    tensor = (torch.arange(64) % 2).to(torch.float32).to(dtype).reshape(8, 8)
    name, _, root = hashed(tensor)
    assert name == f"t {str(dtype).removeprefix('torch.')}[8, 8]"
    code = DTYPE_CODES["bfloat16"] if dtype == torch.bfloat16 else DTYPE_CODES["uint8"]
    data = tensor.view(torch.uint8).numpy().tobytes() if dtype != torch.bool else tensor.numpy().tobytes()
    assert root == expected(data, code, 64 if dtype == torch.bfloat16 else len(data))[1]


def test_lazy_views_are_hashed_as_what_they_mean() -> None:
    tensor = torch.randn(5, dtype=torch.complex64)
    assert hashed(tensor.conj()) == hashed(tensor.conj().resolve_conj().clone())


def test_digest_ignores_the_order_and_the_revision() -> None:
    a, b = np.arange(5.0), torch.ones(3)
    digest = SharedState({"a": a, "b": b}, 1).digest()
    assert digest == SharedState({"b": b, "a": a}, 7).digest()
    assert len(digest) == 16
    assert digest != SharedState({"a": a + 1, "b": b}).digest()
    assert digest != SharedState({"a": a, "c": b}).digest()
    assert digest != SharedState({"a": a.reshape(5, 1), "b": b}).digest()


def test_state_follows_reassigned_memory() -> None:
    """A parameter whose data was replaced is hashed where it is now."""
    parameter = torch.nn.Parameter(torch.zeros(3))
    state = SharedState({"p": parameter})
    before = state.digest()
    parameter.data = torch.ones(3)
    assert state.digest() != before


@pytest.mark.parametrize("copied", [False, True])
def test_write_back_reaches_the_tensor(copied: bool) -> None:
    array = np.zeros((4, 6), np.int16)
    tensor = torch.zeros(4, 6, dtype=torch.complex64)
    state = SharedState({"a": array[:, ::2] if copied else array, "t": tensor.t() if copied else tensor})
    for entry in state.entries():
        assert entry.host.copied is copied
        entry.memory[:] = b"\x01" * len(entry.memory)
        entry.host.write_back()
    assert np.all((array[:, ::2] if copied else array) == 0x0101)
    assert not copied or np.all(array[:, 1::2] == 0)
    assert len(set(torch.view_as_real(tensor).flatten().tolist())) == 1 and tensor[0, 0] != 0


def test_parameters_that_require_grad_are_written() -> None:
    weight = torch.nn.Linear(4, 4).weight
    (entry,) = SharedState({"w": weight.t()}).entries()
    entry.memory[:] = bytes(len(entry.memory))
    entry.host.write_back()
    assert weight.requires_grad and weight.is_leaf and not weight.any()


def read_only() -> np.ndarray[Any, Any]:
    array = np.zeros(3)
    array.flags.writeable = False
    return array


SHARED = np.zeros(10)


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({}, "at least one tensor"),
        ({"": np.zeros(1)}, "'' names a tensor"),
        ({3: np.zeros(1)}, "3 names a tensor"),
        ({"w": 3.0}, "state 'w' is a float"),
        ({"w": read_only()}, r"state 'w' float64\[3\] is read-only"),
        ({"w": np.array([None])}, "no plain bytes"),
        ({"w": torch.zeros(3).to_sparse()}, "pass a dense tensor"),
        ({"w": torch.zeros(3, device="meta")}, "meta device"),
        ({"a": SHARED, "b": SHARED}, "share memory: pass each one only once"),
        ({"a": SHARED[:6], "b": torch.from_numpy(SHARED)[5:]}, "share memory"),
        ({"n" * 250: np.zeros(1)}, "256 is the limit"),
    ],
)
def test_refused(tensors: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        SharedState(tensors)


@pytest.mark.parametrize("tensors", [[np.zeros(10_000)], np.zeros(10_000), None])
def test_tensors_without_names_are_refused_in_a_line(tensors: Any) -> None:
    with pytest.raises(UsageError, match="^no names, but a .*: pass {'weights': weights}") as caught:
        SharedState(tensors)
    assert len(str(caught.value)) < 120


def test_repr() -> None:
    state = SharedState({"a": np.zeros(3), "b": torch.zeros(2, 2)}, 7)
    assert repr(state) == "<SharedState of 2 tensors, 40 bytes: revision 7>"
    state.torn = True
    assert repr(state).endswith("revision 7, torn>")


@pytest.mark.parametrize("revision", [-1, 2**64, 1.0, "1", True, None])
def test_wrong_revisions(revision: Any) -> None:
    with pytest.raises(UsageError, match="revision"):
        SharedState({"a": np.zeros(1)}, revision)
    state = SharedState({"a": np.zeros(1)}, 2**64 - 1)
    with pytest.raises(UsageError, match="revision"):
        state.revision = revision


def test_memory_and_addresses() -> None:
    data = bytearray(b"abcdef")
    view = memory(address_of(data), 6)
    view[2] = ord("X")
    assert data == b"abXdef"
    assert memory(0, 0).tobytes() == b"" and address_of(bytearray()) == 0


def test_hashing_is_fast_enough_to_be_done_often() -> None:
    """256 MiB take about 9 ms on one core; the limit leaves room for a machine that does other things too."""
    data = np.frombuffer(os.urandom(1 << 20), np.uint8).repeat(256)
    entries = SharedState({"t": data}).entries()
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        hash_all([(entry.memory, entry.digests) for entry in entries])
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) < 0.04
