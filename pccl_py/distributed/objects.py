"""Python objects as bytes and back, without pickle: what comes from other hosts can only become plain data.

None, bool, int, float, str, bytes, list, tuple, dict, numpy arrays and torch tensors, nested. Anything else
is a TypeError that says so. A value is one byte that names its kind, then its content; sizes are 8 bytes,
little endian.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import torch

from ..errors import ProtocolError

DEPTH_MAX = 64
_SIZE = struct.Struct("<q")
_FLOAT = struct.Struct("<d")
_NUMPY_KINDS = "?bhilqBHILQefdFDgG"


def encode(value: Any) -> bytes:
    """Raises TypeError for what is no plain data."""
    parts: list[bytes] = []
    _encode(value, parts, 0)
    return b"".join(parts)


def _encode(value: Any, parts: list[bytes], depth: int) -> None:
    if depth > DEPTH_MAX:
        raise TypeError(f"objects are nested at most {DEPTH_MAX} deep, and not in themselves")
    kind = type(value)
    if value is None or kind is bool:
        parts.append({None: b"N", True: b"T", False: b"F"}[value])
    elif kind is int:
        _sized(b"i", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True), parts)
    elif kind is float:
        parts.append(b"f" + _FLOAT.pack(value))
    elif kind is str:
        _sized(b"s", value.encode("utf-8", "surrogatepass"), parts)
    elif kind is bytes:
        _sized(b"b", value, parts)
    elif kind in (list, tuple):
        parts.append((b"l" if kind is list else b"t") + _SIZE.pack(len(value)))
        for item in value:
            _encode(item, parts, depth + 1)
    elif kind is dict:
        parts.append(b"d" + _SIZE.pack(len(value)))
        for key, item in value.items():
            _encode(key, parts, depth + 1)
            _encode(item, parts, depth + 1)
    else:
        _encode_array(value, parts)


def _encode_array(value: Any, parts: list[bytes]) -> None:
    if isinstance(value, torch.Tensor) and value.layout == torch.strided:
        dense = value.detach().cpu().contiguous().resolve_conj().resolve_neg()
        _shaped(b"P", str(dense.dtype).removeprefix("torch."), dense.shape, parts)
        _sized(b"", dense.reshape(-1).view(torch.uint8).numpy().tobytes(), parts)
    elif isinstance(value, np.ndarray) and value.dtype.char in _NUMPY_KINDS:
        _shaped(b"A", value.dtype.str, value.shape, parts)
        _sized(b"", value.tobytes(), parts)
    elif isinstance(value, np.generic) and value.dtype.char in _NUMPY_KINDS:
        _encode(value.item(), parts, DEPTH_MAX)
    else:
        raise TypeError(
            f"an object of type {type(value).__qualname__} cannot be sent: pass None, bool, int, float, str, "
            "bytes, list, tuple, dict, numpy arrays or torch tensors"
        )


def _sized(kind: bytes, content: bytes, parts: list[bytes]) -> None:
    parts.append(kind + _SIZE.pack(len(content)))
    parts.append(content)


def _shaped(kind: bytes, dtype: str, shape: Any, parts: list[bytes]) -> None:
    _sized(kind, dtype.encode(), parts)
    parts.append(_SIZE.pack(len(shape)) + b"".join(_SIZE.pack(n) for n in shape))


def decode(data: bytes | memoryview) -> Any:
    """Raises ProtocolError for bytes that encode() does not write."""
    reader = _Reader(memoryview(data))
    try:
        value = reader.value(0)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise ProtocolError(f"a peer sent an object that cannot be read: {error}") from error
    if reader.left:
        raise ProtocolError(f"a peer sent an object with {reader.left} bytes too many")
    return value


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def value(self, depth: int) -> Any:
        if depth > DEPTH_MAX + 1:
            raise ValueError("nested too deep")
        kind = bytes(self._take(1))
        if kind in b"NTF":
            return {b"N": None, b"T": True, b"F": False}[kind]
        if kind == b"i":
            return int.from_bytes(self._take(self._size()), "little", signed=True)
        if kind == b"f":
            return _FLOAT.unpack(self._take(8))[0]
        if kind == b"s":
            return bytes(self._take(self._size())).decode("utf-8", "surrogatepass")
        if kind == b"b":
            return bytes(self._take(self._size()))
        if kind in b"lt":
            items = [self.value(depth + 1) for _ in range(self._size())]
            return items if kind == b"l" else tuple(items)
        if kind == b"d":
            return {self.value(depth + 1): self.value(depth + 1) for _ in range(self._size())}
        if kind in b"PA":
            return self._array(kind == b"P")
        raise ValueError(f"kind {kind!r}")

    def _array(self, torch_tensor: bool) -> Any:
        name = bytes(self._take(self._size())).decode("ascii")
        dimensions = self._size()
        if dimensions > DEPTH_MAX:
            raise ValueError("too many dimensions")
        shape = [self._number() for _ in range(dimensions)]
        content = bytearray(self._take(self._size()))
        if torch_tensor:
            return _tensor(name, shape, content)
        dtype = np.dtype(name)
        if dtype.char not in _NUMPY_KINDS or dtype.itemsize * math.prod(shape) != len(content):
            raise ValueError(f"an array of {name}")
        return np.frombuffer(content, dtype).reshape(shape)

    def _take(self, count: int) -> memoryview:
        if count > self.left:
            raise ValueError("it ends too early")
        self._at += count
        return self._data[self._at - count : self._at]

    def _number(self) -> int:
        number = int(_SIZE.unpack(self._take(8))[0])
        if number < 0:
            raise ValueError("a negative size")
        return number

    def _size(self) -> int:
        """Of something whose every part takes a byte at least."""
        size = self._number()
        if size > self.left:
            raise ValueError("it ends too early")
        return size


def _tensor(name: str, shape: list[int], content: bytearray) -> torch.Tensor:
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype) or dtype.itemsize * math.prod(shape) != len(content):
        raise ValueError(f"a tensor of {name}")
    if not content:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(content, dtype=torch.uint8).view(dtype).reshape(shape)
