"""What becomes of tensors before the core sees them: addresses, and everything that is refused, in words."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pccl_py import UsageError, _core
from pccl_py.tensors import DTYPE_CODES, TENSORS_MAX, Operand, check_disjoint, describe, operands

NUMPY = [name for name in DTYPE_CODES if name != "bfloat16"]


def test_dtypes_are_numbered_as_in_the_core() -> None:
    assert dict(_core.DTYPES) == DTYPE_CODES


@pytest.mark.parametrize("name", NUMPY)
def test_numpy_dtypes(name: str) -> None:
    array = np.ones((3, 5), name)
    assert operands(array, None) == [Operand(array.ctypes.data, array.ctypes.data, 15, DTYPE_CODES[name])]


@pytest.mark.parametrize("name", list(DTYPE_CODES))
def test_torch_dtypes(name: str) -> None:
    tensor = torch.ones(3, 5, dtype=getattr(torch, name))
    assert operands(tensor, None) == [Operand(tensor.data_ptr(), tensor.data_ptr(), 15, DTYPE_CODES[name])]


@pytest.mark.parametrize("dtype", [bool, complex, "S4", "datetime64[s]", ">f4", [("a", "i4")], object])
def test_numpy_dtypes_refused(dtype: Any) -> None:
    with pytest.raises(UsageError, match="all_reduce and broadcast take float32"):
        operands(np.zeros(4, dtype), None)


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_torch_dtypes_refused(dtype: torch.dtype) -> None:
    with pytest.raises(UsageError, match="all_reduce and broadcast take float32"):
        operands(torch.zeros(4).to(dtype), None)


def test_a_dtype_named_bfloat16_is_one() -> None:
    """Of the ml_dtypes package, which is not installed here: the name decides."""
    from pccl_py import tensors

    class Named:
        isnative = True
        name = "bfloat16"

    assert tensors.numpy_code(Named()) == DTYPE_CODES["bfloat16"]  # type: ignore[arg-type]


def test_unaligned_memory_is_taken() -> None:
    raw = np.zeros(4 * 10 + 1, np.uint8)
    array = raw[1:].view(np.float32)
    assert operands(array, None)[0].input == raw.ctypes.data + 1


def test_out_of_place_pairs_each_input_with_its_output() -> None:
    a, b, out_a = np.ones(3, np.int8), torch.ones(2, 2), np.zeros(3, np.int8)
    assert operands([a, b], [out_a, b]) == [
        Operand(a.ctypes.data, out_a.ctypes.data, 3, DTYPE_CODES["int8"]),
        Operand(b.data_ptr(), b.data_ptr(), 4, DTYPE_CODES["float32"]),  # exactly its input: in place
    ]


def test_read_only_input_is_fine_out_of_place() -> None:
    array = np.ones(3)
    array.flags.writeable = False
    assert len(operands(array, np.zeros(3))) == 1
    with pytest.raises(UsageError, match=r"the tensor float64\[3\] is read-only"):
        operands(array, None)
    with pytest.raises(UsageError, match=r"out for the tensor float64\[3\] is read-only"):
        operands(np.zeros(3), array)


def test_inputs_that_share_memory_are_fine_where_nothing_is_written_to_them() -> None:
    array = np.zeros(10)
    a, b, c = (np.zeros(10) for _ in range(3))
    assert len(operands([array, array, array], [a, b, c])) == 3
    assert len(operands([array[:6], array[4:]], [np.zeros(6), np.zeros(6)])) == 2
    for inputs, outputs in (
        ([array, array], [a, a]),
        ([array, array], [array, a]),
        ([array, array[:1], b], [a, b[:1], array]),
        ([array[:9], array[:1], array[8:9]], [a[:9], b[:1], array[8:9]]),
    ):
        with pytest.raises(UsageError, match="share memory"):
            operands(inputs, outputs)


def test_zero_length_tensors_are_taken_anywhere() -> None:
    base = np.zeros(10, np.float32)
    items = operands([base, base[3:3], torch.zeros(0)], None)
    assert [item.elements for item in items] == [10, 0, 0]


def test_parameters_are_tensors() -> None:
    parameter = torch.nn.Linear(2, 2).weight
    assert operands(parameter, None)[0].input == parameter.data_ptr()


REFUSED: list[tuple[Any, Any, str]] = [
    (np.zeros((4, 4))[:, 1], None, r"float64\[4\] is not contiguous: pass np.ascontiguousarray"),
    (np.asfortranarray(np.zeros((4, 4))), None, r"float64\[4, 4\] is not contiguous"),
    (torch.zeros(4, 4).t(), None, r"float32\[4, 4\] is not contiguous: pass tensor.contiguous\(\)"),
    (torch.zeros(1).expand(4), None, "is not contiguous"),
    (torch.zeros(4).to_sparse(), None, "pass a dense tensor"),
    (torch.zeros(4, 4).to_mkldnn(), None, "pass a dense tensor"),
    (torch.zeros(4, device="meta"), None, "meta device"),
    (torch.zeros(2, dtype=torch.complex64).conj().imag, None, "contiguous|negated"),
    (np.ma.masked_array(np.zeros(3)), None, "masked array"),
    ([1.0, 2.0], None, "tensor 0 of the list is a float"),
    (3.0, None, "the tensor is a float; pass a numpy array or a torch tensor"),
    ([], None, "the list is empty"),
    ([np.zeros(1)] * (TENSORS_MAX + 1), None, "join small ones"),
    ([np.zeros(3), np.zeros(3)], [np.zeros(3)], "2 tensors and 1 in out"),
    (np.zeros(3), np.zeros(4), r"the tensor is float64\[3\], its out is float64\[4\]"),
    (np.zeros(3), np.zeros(3, np.float32), "they must agree"),
]


@pytest.mark.parametrize(("tensors", "out", "text"), REFUSED, ids=[text[:30] for *_, text in REFUSED])
def test_refused_with_cause_and_next_step(tensors: Any, out: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        operands(tensors, out)


class OnDevice(torch.Tensor):
    """Looks like a tensor on a device that this machine may not have."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("xpu", 0)

    is_cpu = False  # type: ignore[assignment]


def test_other_devices_than_cuda() -> None:
    tensor = torch.zeros(4).as_subclass(OnDevice)
    with pytest.raises(UsageError, match=r"on xpu:0, neither host nor CUDA: pass tensor.cpu\(\)"):
        operands(tensor, None)


BASE = np.zeros(100, np.float32)


@pytest.mark.parametrize(
    ("tensors", "out", "text"),
    [
        ([BASE, BASE], None, "tensor 0 of the list and tensor 1 of the list share memory"),
        ([BASE[:50], BASE[49:]], None, "share memory: pass each one only once"),
        ([torch.from_numpy(BASE), BASE[10:20]], None, "share memory"),
        (BASE[:50], BASE[1:51], "the tensor and out for the tensor share memory|out for the tensor and the"),
        ([BASE[:10], BASE[10:20]], [BASE[20:30], BASE[:10]], "share memory"),
        ([BASE[:10], BASE[10:20]], [BASE[20:30], BASE[25:35]], "share memory"),
    ],
)
def test_aliases_are_refused(tensors: Any, out: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        operands(tensors, out)


def test_neighbours_are_no_aliases() -> None:
    assert len(operands([BASE[50:], BASE[:50]], None)) == 2
    assert len(operands(BASE[:50], BASE[50:])) == 1


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 12)), max_size=8), st.sets(st.integers(0, 7)))
def test_disjoint_says_what_counting_bytes_says(ranges: list[tuple[int, int]], only_read: set[int]) -> None:
    users: dict[int, list[int]] = {}
    for index, (address, size) in enumerate(ranges):
        for byte in range(address, address + size):
            users.setdefault(byte, []).append(index)
    names = [str(index) for index in range(len(ranges))]
    if all(len(found) == 1 or only_read.issuperset(found) for found in users.values()):
        check_disjoint(ranges, names, only_read)
    else:
        with pytest.raises(UsageError, match="share memory"):
            check_disjoint(ranges, names, only_read)


def test_describe() -> None:
    assert describe(np.zeros((2, 3), np.float16)) == "float16[2, 3]"
    assert describe(torch.zeros(2, dtype=torch.bfloat16)) == "bfloat16[2]"
    assert describe(np.zeros((), ">i4")) == ">i4[]"


def test_without_torch_arrays_work() -> None:
    source = """
import sys, numpy, pccl_py
from pccl_py.tensors import operands
assert operands(numpy.ones(3), None)[0].elements == 3
try:
    operands(object(), None)
except pccl_py.UsageError:
    assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", source], check=True, timeout=60)
