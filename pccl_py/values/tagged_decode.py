"""From tagged JSON to values: see tagged.py. The JSON may come from anybody."""

from __future__ import annotations

import math
import re
from base64 import b64decode
from collections.abc import Callable, Sized
from struct import unpack
from typing import Any, NoReturn, TypeVar

import numpy as np

from ..errors import DamagedError, StateError
from . import dtypes, names
from .bounded_json import Json
from .limits import INT_BITS_MAX, INT_MAX, JSON_DEPTH_MAX, RANK_MAX

TensorOf = Callable[[str], Any]  # what stands for a tensor, by its name

_HEX_INT = re.compile(f"-?[0-9a-f]{{1,{INT_BITS_MAX // 4}}}")
_HEX_DOUBLE = re.compile("[0-9a-f]{16}")
_NUMPY_DTYPE = re.compile(r"\|b1|\|[iu]1|<[iu][248]|<f[248]|<c8|<c16")
_WORD = re.compile("[a-z][a-z0-9_]{0,39}")
_DEVICE = re.compile("[a-z]{1,20}(:[0-9]{1,5})?")


def decode(value: Json, *, tensor: TensorOf | None = None) -> Any:
    """The value; `tensor` gives what each {"$tensor": name} becomes. Raises DamagedError for what `encode`
    does not write, StateError where torch is needed and not installed."""
    return _Decoder(tensor).value(value, 1)


class _Decoder:
    def __init__(self, tensor: TensorOf | None) -> None:
        self._tensor = tensor

    def value(self, value: Json, depth: int) -> Any:
        if depth > JSON_DEPTH_MAX:
            _refuse("values are nested too deeply")
        if isinstance(value, list):
            return [self.value(item, depth + 1) for item in value]
        if not isinstance(value, dict):
            return value
        if not any(key.startswith("$") for key in value):
            return {key: self.value(item, depth + 1) for key, item in value.items()}
        if len(value) != 1:
            _refuse(f"a tag among other keys: {sorted(value)!r:.80}")
        ((tag, content),) = value.items()
        return self._tagged(tag, content, depth)

    def _tagged(self, tag: str, content: Json, depth: int) -> Any:
        try:
            if tag in _FROM_PARTS:
                return _FROM_PARTS[tag](self._parts(tag, content, depth))
            if tag in _FROM_TEXT and isinstance(content, str):
                return _FROM_TEXT[tag](content)
            if tag == "$tensor" and isinstance(content, str):
                return self._reference(content)
        except (ValueError, TypeError, OverflowError, RuntimeError) as error:
            _refuse(f"a wrong {tag}: {error}")
        _refuse(f"a tag that is not known, or holds something else: {names.shown(tag, 40)}")

    def _parts(self, tag: str, content: Json, depth: int) -> list[Any]:
        if not isinstance(content, list):
            _refuse(f"a {tag} without a list")
        return [self.value(item, depth + 2) for item in content]

    def _reference(self, name: str) -> Any:
        if wrong := names.fault(name):
            _refuse(f"no tensor is called {names.shown(name)}: {wrong}")
        if self._tensor is None:
            _refuse(f"tensor {names.shown(name)} where no tensor may be")
        return self._tensor(name)


def _refuse(why: str) -> NoReturn:
    raise DamagedError(f"an object of the checkpoint: {why}")


_Found = TypeVar("_Found", bound=Sized)


def _of(parts: list[Any], *kinds: type) -> list[Any]:
    if len(parts) != len(kinds) or any(type(p) is not kind for p, kind in zip(parts, kinds, strict=True)):
        raise ValueError("its parts are of other kinds")
    return parts


def _pairs(parts: list[Any]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for pair in parts:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError("not made of pairs")
        found[pair[0]] = pair[1]
    return _distinct(found, parts)


def _distinct(found: _Found, parts: list[Any]) -> _Found:
    if len(found) != len(parts):
        raise ValueError("something is in it twice")
    return found


def _int(text: str) -> int:
    if not _HEX_INT.fullmatch(text):
        raise ValueError("no hexadecimal number")
    return int(text, 16)


def _float(text: str) -> float:
    if text in ("nan", "inf", "-inf"):
        return float(text)
    if not _HEX_DOUBLE.fullmatch(text):
        raise ValueError("no double")
    return float(unpack(">d", bytes.fromhex(text))[0])


def _base64(text: str) -> bytes:
    return b64decode(text, validate=True)


def _numpy_dtype(text: str) -> np.dtype[Any]:
    if not _NUMPY_DTYPE.fullmatch(text):
        raise ValueError("no dtype of numbers")
    return np.dtype(text).newbyteorder("=")


def _shape(value: list[Any]) -> tuple[int, ...]:
    if len(value) > RANK_MAX or not all(type(size) is int and 0 <= size <= INT_MAX for size in value):
        raise ValueError("no shape")
    return tuple(value)


def _scalar(parts: list[Any]) -> Any:
    dtype, data = _of(parts, str, str)
    return _elements(_numpy_dtype(dtype), (), _base64(data))[()]


def _array(parts: list[Any]) -> np.ndarray[Any, Any]:
    dtype, shape, data = _of(parts, str, list, str)
    return _elements(_numpy_dtype(dtype), _shape(shape), _base64(data))


def _elements(dtype: np.dtype[Any], shape: tuple[int, ...], data: bytes) -> np.ndarray[Any, Any]:
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes for shape {shape} of {dtype}")
    little = np.frombuffer(data, dtype.newbyteorder("<"))
    return little.astype(dtype).reshape(shape)  # a copy: writable, in this machine's byte order


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise StateError("the checkpoint holds torch's objects: install torch to read it") from None
    return torch


def _inline(parts: list[Any]) -> Any:
    dtype, shape, data = _of(parts, str, list, str)
    raw, sizes = bytearray(_base64(data)), _shape(shape)
    if dtype not in dtypes.DTYPES or math.prod(sizes) * dtypes.itemsize(dtype) != len(raw):
        raise ValueError("its bytes do not fit dtype and shape")
    torch, known = _torch(), dtypes.to_torch(dtype)
    return torch.frombuffer(raw, dtype=known).reshape(sizes) if raw else torch.empty(sizes, dtype=known)


def _torch_dtype(text: str) -> Any:
    torch = _torch()
    found = getattr(torch, text, None) if _WORD.fullmatch(text) else None
    if not isinstance(found, torch.dtype):
        raise ValueError(f"no dtype of torch {torch.__version__}: {names.shown(text, 40)}")
    return found


def _device(text: str) -> Any:
    if not _DEVICE.fullmatch(text):
        raise ValueError("no device")
    return _torch().device(text)


def _size(parts: list[Any]) -> Any:
    return _torch().Size(_shape(parts))


_FROM_PARTS: dict[str, Callable[[list[Any]], Any]] = {
    "$tuple": tuple,
    "$set": lambda parts: _distinct(set(parts), parts),
    "$frozenset": lambda parts: _distinct(frozenset(parts), parts),
    "$dict": _pairs,
    "$slice": lambda parts: slice(*_exactly_three(parts)),
    "$range": lambda parts: range(*_of(parts, int, int, int)),
    "$complex": lambda parts: complex(*_of(parts, float, float)),
    "$scalar": _scalar,
    "$array": _array,
    "$inline": _inline,
    "$size": _size,
}
_FROM_TEXT: dict[str, Callable[[str], Any]] = {
    "$int": _int,
    "$float": _float,
    "$str": lambda text: _base64(text).decode("utf-8", "surrogatepass"),
    "$bytes": _base64,
    "$bytearray": lambda text: bytearray(_base64(text)),
    "$numpy_dtype": _numpy_dtype,
    "$dtype": _torch_dtype,
    "$device": _device,
}


def _exactly_three(parts: list[Any]) -> list[Any]:
    if len(parts) != 3:
        raise ValueError("not of three parts")
    return parts
