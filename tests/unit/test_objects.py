"""Objects as bytes: what can be sent comes back equal, anything else is refused, and so are hostile bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pccl_py import ProtocolError

torch = pytest.importorskip("torch")

from pccl_py.distributed.objects import decode, encode  # noqa: E402

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(plain)
def test_plain_data_comes_back(value: Any) -> None:
    back = decode(encode(value))
    assert back == value and type(back) is type(value)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float16", "float64", "complex64", ">i4"])
@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 1, 3)])
def test_arrays_come_back(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    back = decode(encode([array]))[0]
    assert back.dtype == array.dtype and back.shape == array.shape and (back == array).all()
    back[...] = 0  # writable


def test_tensors_come_back() -> None:
    for tensor in (
        torch.arange(6).reshape(2, 3).t(),
        torch.ones(2, dtype=torch.bfloat16),
        torch.tensor(True),
        torch.zeros(0, 3),
        torch.ones(3).to(torch.float8_e5m2),
    ):
        back = decode(encode({"t": tensor}))["t"]
        assert back.dtype == tensor.dtype and back.shape == tensor.shape
        assert torch.equal(back.float(), tensor.float())


class Own(dict[str, int]):
    pass


@pytest.mark.parametrize(
    "value", [{1, 2}, object(), Own(), print, np.array([object()]), torch.eye(2).to_sparse()]
)
def test_other_types_are_refused_by_name(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        encode([value])


def test_what_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(TypeError, match="nested"):
        encode(value)


@settings(max_examples=500)
@given(st.binary(max_size=60) | st.builds(lambda a, b: encode([1, "x", a])[:-b], plain, st.integers(1, 9)))
def test_hostile_bytes_are_refused_or_plain(data: bytes) -> None:
    try:
        value = decode(data)
    except ProtocolError:
        return
    encode(value)


@pytest.mark.parametrize(
    "data",
    [
        b"s" + (2**62).to_bytes(8, "little"),
        b"l" + (2**40).to_bytes(8, "little") + b"N",
        b"i" + (-1).to_bytes(8, "little", signed=True),
        b"l\x01\0\0\0\0\0\0\0" * 2000 + b"N",
        b"d\x01\0\0\0\0\0\0\0" + encode([]) + b"N",
        encode(np.zeros(3)).replace(b"<f8", b"|O8"),
        encode(torch.zeros(3)).replace(b"float32", b"manual_"),
        encode(torch.zeros(3)).replace(b"float32", b"float64"),
    ],
)
def test_sizes_depth_and_types_are_checked(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(data)
