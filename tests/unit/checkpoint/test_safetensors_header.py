"""Headers of shard files: what the library of safetensors reads, and nothing that it refuses."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pccl_py.checkpoint import safetensors_header
from pccl_py.checkpoint.safetensors_header import parse, plan, tensor_bytes
from pccl_py.errors import DamagedError, StateError
from pccl_py.values import dtypes
from tests.unit.checkpoint.steps import CALM, NAMES, SHAPES

ENTRIES = st.dictionaries(NAMES, st.tuples(st.sampled_from(sorted(dtypes.DTYPES)), SHAPES), max_size=6)


def entries(table: dict[str, Any]) -> list[tuple[str, str, tuple[int, ...], int]]:
    return [(name, dtype, shape, tensor_bytes(dtype, shape)) for name, (dtype, shape) in table.items()]


@CALM
@given(ENTRIES)
def test_a_plan_is_aligned_dense_and_parsed_again(table: dict[str, Any]) -> None:
    made = plan(entries(table))
    assert len(made.header) % 4096 == 0
    header = parse(made.header, made.file_bytes)
    assert header.data_offset == len(made.header) and header.metadata == {"format": "pt"}
    assert {name: (entry.dtype, entry.shape) for name, entry in header.tensors.items()} == table
    for name, entry in header.tensors.items():
        assert made.offsets[name] == entry.begin
        assert entry.begin % dtypes.itemsize(entry.dtype) == 0


@given(ENTRIES)
@settings(CALM, max_examples=50)
def test_safetensors_reads_what_is_planned(table: dict[str, Any]) -> None:
    made = plan(entries(table))
    data = bytearray(made.header + random.Random(1).randbytes(made.file_bytes - len(made.header)))
    for name, (dtype, shape) in table.items():
        if dtype == "BOOL":
            end = made.offsets[name] + tensor_bytes(dtype, shape)
            data[made.offsets[name] : end] = bytes(end - made.offsets[name])
    found = safetensors.deserialize(bytes(data))
    assert {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in found} == table
    for name, entry in found:
        begin = made.offsets[name]
        assert bytes(entry["data"]) == data[begin : begin + tensor_bytes(*table[name])]


@pytest.mark.parametrize("dtype", sorted(dtypes.DTYPES))
def test_every_dtype_is_that_of_torch_and_numpy(dtype: str) -> None:
    known = dtypes.to_torch(dtype)
    assert dtypes.of_torch(known) == dtype and known.itemsize == dtypes.itemsize(dtype)
    name = dtypes.DTYPES[dtype].numpy
    if name is not None:
        assert dtypes.of_numpy(np.dtype(name)) == dtype
        assert dtypes.of_numpy(np.dtype(name).newbyteorder()) == (
            dtype if np.dtype(name).itemsize == 1 else None
        )
    if dtype == "F8_E8M0":  # this library's torch part has no name for it
        return
    data = safetensors.torch.save({"x": torch.zeros(2, dtype=known)})
    assert parse(data, len(data)).tensors["x"].dtype == dtype


def test_what_safetensors_writes_is_parsed() -> None:
    data = safetensors.numpy.save({"b": np.ones((2, 3), np.float32), "a": np.ones(3, np.int8)}, {"k": "v"})
    header = parse(data, len(data))
    assert header.metadata == {"k": "v"} and header.tensors["b"].shape == (2, 3)
    for name, entry in header.tensors.items():
        expected = np.ones(entry.shape, np.float32 if name == "b" else np.int8).tobytes()
        assert data[entry.begin : entry.end] == expected


def test_a_plan_that_no_file_can_have_is_refused() -> None:
    for wrong in [
        [("__metadata__", "U8", (1,), 1)],
        [("a", "U8", (1,), 1), ("a", "U8", (2,), 2)],
        [("a\n", "U8", (1,), 1)],
        [("a", "U8", (1,), 2)],
        [("a", "X", (1,), 1)],
    ]:
        with pytest.raises(StateError):
            plan(wrong)


def file_of(header: Any, data_bytes: int, text: bytes | None = None) -> tuple[bytes, int]:
    text = json.dumps(header).encode() if text is None else text
    return struct.pack("<Q", len(text)) + text, 8 + len(text) + data_bytes


GOOD = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}


@pytest.mark.parametrize(
    ("header", "data_bytes", "says"),
    [
        ({"a": GOOD}, 3, "end at byte"),
        ({"a": GOOD}, 1, "end at byte"),
        ({"a": GOOD, "b": GOOD}, 4, "a hole or an overlap"),
        ({"a": GOOD | {"data_offsets": [1, 3]}}, 3, "a hole"),
        ({"a": GOOD | {"data_offsets": [-2, 0]}}, 0, "data_offsets"),
        ({"a": GOOD | {"data_offsets": [2, 0]}}, 2, "data_offsets"),
        ({"a": GOOD | {"data_offsets": [0, 2.0]}}, 2, "data_offsets"),
        ({"a": GOOD | {"data_offsets": [0, 3]}}, 3, "dtype and shape say 2"),
        ({"a": GOOD | {"shape": [1 << 62, 1 << 62]}}, 2, "dtype and shape say"),
        ({"a": GOOD | {"shape": [1 << 64]}}, 2, "shape"),
        ({"a": GOOD | {"shape": [True, 2]}}, 2, "shape"),
        ({"a": GOOD | {"shape": [1] * 40}}, 2, "shape"),
        ({"a": GOOD | {"dtype": "Q7"}}, 2, "dtype"),
        ({"a": GOOD | {"dtype": ["U8"]}}, 2, "dtype"),
        ({"a": GOOD | {"dtype": "F4", "shape": [3]}}, 2, "inside of a byte"),
        ({"a": GOOD | {"more": 1}}, 2, "exactly"),
        ({"a": 1}, 2, "exactly"),
        ({"__metadata__": {"a": 1}}, 0, "__metadata__"),
        ({"__metadata__": []}, 0, "__metadata__"),
        ({"x" * 5000: GOOD}, 2, "too long"),
        ([], 0, "begin with"),
        ({"a": [[[[[]]]]]}, 0, "deeper"),
    ],
)
def test_a_hostile_header_is_refused(header: Any, data_bytes: int, says: str) -> None:
    with pytest.raises(DamagedError, match=says) as caught:
        parse(*file_of(header, data_bytes), what="shard 3")
    assert str(caught.value).startswith("shard 3: ")


def test_wrong_lengths_are_refused() -> None:
    for length, size in [
        (0, 8),
        (1, 9),
        (100, 50),
        (1 << 63, 1 << 62),
        (100_000_001, 1 << 40),
        (2**64 - 1, 100),
    ]:
        with pytest.raises(DamagedError, match="no safetensors file"):
            parse(struct.pack("<Q", length) + b"{}", size)
    with pytest.raises(DamagedError, match="no safetensors"):
        parse(b"short", 5)
    with pytest.raises(DamagedError, match="ends after"):
        parse(struct.pack("<Q", 100) + b"{}", 200)
    with pytest.raises(DamagedError, match="twice"):
        parse(*file_of(None, 0, b'{"a":1,"a":2}'))


@given(st.data())
@settings(CALM, max_examples=300)
def test_a_damaged_header_is_refused_or_still_one(data: st.DataObject) -> None:
    made = plan([("w", "F32", (2, 3), 24), ("b", "BF16", (5,), 10)])
    damaged = bytearray(made.header)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, 160))
        damaged[position] = data.draw(st.integers(0, 255))
    try:
        header = parse(bytes(damaged), made.file_bytes)
    except DamagedError:
        return
    assert all(header.data_offset <= e.begin <= e.end <= made.file_bytes for e in header.tensors.values())


def test_a_large_header_is_planned_and_parsed_in_time() -> None:
    made = plan([(f"layer/{i}/weight", "F32", (4, 4), 64) for i in range(50_000)])
    header = safetensors_header.parse(made.header, made.file_bytes)
    assert len(header.tensors) == 50_000
