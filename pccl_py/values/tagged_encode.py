"""From values to tagged JSON: see tagged.py."""

from __future__ import annotations

import sys
from base64 import b64encode
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite
from struct import pack
from typing import Any, NoReturn

import numpy as np

from ..errors import StateError
from . import bounded_json, dtypes, names
from .bounded_json import Json
from .limits import INLINE_BYTES_MAX, INT_BITS_MAX, TAGGED_DEPTH_MAX

Path = tuple[str | int, ...]
# Asked for each torch tensor and numpy array: under which name it is saved as a tensor; None: keep it inline.
NameOf = Callable[[Path, Any], str | None]

_INT64 = range(-(1 << 63), 1 << 63)


def encode(value: object, *, path: Path = (), tensor: NameOf | None = None) -> Json:
    """Tagged JSON of a value; `path` is where in the state it stands. Raises StateError with the path of what
    cannot be saved."""
    return _Encoder(tensor).value(value, path, 1)


@dataclass(frozen=True, slots=True)
class Reference:
    """Stands in a state for a tensor that is saved under this name."""

    name: str


class _Encoder:
    def __init__(self, tensor: NameOf | None) -> None:
        self._tensor = tensor
        self._torch: Any = sys.modules.get("torch")  # where it was not imported, no value is of its kinds

    def value(self, value: object, path: Path, depth: int) -> Json:
        if value is None or type(value) is bool:
            return value
        if depth > TAGGED_DEPTH_MAX:
            _refuse(path, value, f"it is nested deeper than {TAGGED_DEPTH_MAX} (or holds itself)")
        plain = _PLAIN.get(type(value))
        if plain is not None:
            return plain(value, path)
        nested = _NESTED.get(type(value))
        if nested is not None:
            return nested(self, value, path, depth)
        return self._foreign(value, path)

    def items(self, values: Iterable[object], path: Path, depth: int) -> list[Json]:
        return [self.value(item, (*path, index), depth) for index, item in enumerate(values)]

    def mapping(self, value: dict[Any, Any], path: Path, depth: int) -> Json:
        if all(type(key) is str and not key.startswith("$") and _is_unicode(key) for key in value):
            return {key: self.value(item, (*path, key), depth + 1) for key, item in value.items()}
        pairs: list[Json] = []
        for key, item in value.items():
            part = key if type(key) in (str, int) else repr(key)[:100]
            pairs.append(
                [self.value(key, (*path, part), depth + 3), self.value(item, (*path, part), depth + 3)]
            )
        return {"$dict": pairs}

    def unordered(self, tag: str, value: Iterable[object], path: Path, depth: int) -> Json:
        """In an order that does not depend on hashes."""
        return {tag: sorted(self.items(value, path, depth + 2), key=bounded_json.dumps)}

    def _foreign(self, value: Any, path: Path) -> Json:
        if isinstance(value, np.ndarray):
            return _tensor_reference(self._tensor, value, path) or _array(value, path)
        if isinstance(value, np.generic):
            dtype = _dtype_name(value.dtype, value, path)
            return {"$scalar": [dtype, _base64(np.asarray(value).astype(dtype).tobytes())]}
        if isinstance(value, np.dtype):
            return {"$numpy_dtype": _dtype_name(value, value, path)}
        if self._torch is not None:
            return self._of_torch(value, path)
        _refuse(path, value)

    def _of_torch(self, value: Any, path: Path) -> Json:
        torch = self._torch
        if isinstance(value, torch.Tensor):
            return _tensor_reference(self._tensor, value, path) or _inline(torch, value, path)
        if type(value) is torch.Size:
            return {"$size": [int(size) for size in value]}
        if type(value) is torch.dtype:
            return {"$dtype": str(value).removeprefix("torch.")}
        if type(value) is torch.device:
            return {"$device": str(value)}
        _refuse(path, value)


def _tensor_reference(name_of: NameOf | None, value: Any, path: Path) -> Json:
    name = name_of(path, value) if name_of is not None else None
    return None if name is None else _reference(Reference(name), path)


def _reference(value: Reference, path: Path) -> Json:
    if wrong := names.fault(value.name):
        _refuse(path, value, f"{names.shown(value.name)} is no name for a tensor: {wrong}")
    return {"$tensor": value.name}


def _array(value: np.ndarray[Any, Any], path: Path) -> Json:
    if type(value) is not np.ndarray:
        _refuse(path, value)
    dtype = _dtype_name(value.dtype, value, path)
    _small(value.nbytes, value, path)
    little = value.astype(value.dtype.newbyteorder("<"), copy=False)
    return {"$array": [dtype, list(value.shape), _base64(little.tobytes())]}


def _inline(torch: Any, value: Any, path: Path) -> Json:
    dtype = dtypes.of_torch(value.dtype)
    plain = type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout == torch.strided
    if not plain or dtype is None or value.is_meta:
        _refuse(path, value, "only plain dense tensors and parameters can be saved")
    _small(value.nbytes, value, path)
    dense = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
    return {"$inline": [dtype, list(value.shape), _base64(dense.numpy().tobytes())]}


def _small(size: int, value: object, path: Path) -> None:
    if size > INLINE_BYTES_MAX:
        _refuse(path, value, f"{size} bytes are too many for the object tree; make it a tensor of the state")


def _dtype_name(dtype: np.dtype[Any], value: object, path: Path) -> str:
    if (
        dtype.kind not in "biufc"
        or dtype.itemsize > 16
        or dtype.name in ("longdouble", "float128", "float96")
    ):
        _refuse(path, value, f"numpy's {dtype} has no place in a checkpoint")
    return dtype.newbyteorder("<").str


def _float(value: float, path: Path = ()) -> Json:
    if isfinite(value):
        return value
    bits = pack(">d", value).hex()
    return {"$float": _NAMED_FLOATS.get(bits, bits)}


_NAMED_FLOATS = {"7ff8000000000000": "nan", "7ff0000000000000": "inf", "fff0000000000000": "-inf"}


def _int(value: int, path: Path) -> Json:
    if value in _INT64:
        return value
    if value.bit_length() > INT_BITS_MAX:
        _refuse(path, value, f"an integer of more than {INT_BITS_MAX} bits")
    return {"$int": f"{value:x}"}


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _str(value: str, path: Path) -> Json:
    return value if _is_unicode(value) else {"$str": _base64(value.encode("utf-8", "surrogatepass"))}


def _base64(data: bytes | bytearray) -> str:
    return b64encode(data).decode()


def _refuse(path: Path, value: object, why: str = "") -> NoReturn:
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    why = why or (
        "no such object can be saved without pickle: give numbers, texts, bytes, lists, dicts, arrays or "
        "tensors instead, or a state_dict of them"
    )
    raise StateError(f"{names.path_shown(path)} is a {kind}: {why}")


_PLAIN: dict[type, Callable[[Any, Path], Json]] = {
    int: _int,
    float: _float,
    str: _str,
    Reference: _reference,
    complex: lambda value, path: {"$complex": [_float(value.real), _float(value.imag)]},
    bytes: lambda value, path: {"$bytes": _base64(value)},
    bytearray: lambda value, path: {"$bytearray": _base64(value)},
    range: lambda value, path: {"$range": [_int(n, path) for n in (value.start, value.stop, value.step)]},
}
_NESTED: dict[type, Callable[[_Encoder, Any, Path, int], Json]] = {
    list: lambda encoder, value, path, depth: encoder.items(value, path, depth + 1),
    tuple: lambda encoder, value, path, depth: {"$tuple": encoder.items(value, path, depth + 2)},
    set: lambda encoder, value, path, depth: encoder.unordered("$set", value, path, depth),
    frozenset: lambda encoder, value, path, depth: encoder.unordered("$frozenset", value, path, depth),
    slice: lambda encoder, value, path, depth: {
        "$slice": encoder.items((value.start, value.stop, value.step), path, depth + 2)
    },
    dict: _Encoder.mapping,
    OrderedDict: _Encoder.mapping,
    defaultdict: _Encoder.mapping,
}
