"""Element types by their names in safetensors: how many bits, what numpy and torch call them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..errors import StateError


class Dtype(NamedTuple):
    bits: int
    numpy: str | None  # None: numpy has no such type
    torch: str | None


DTYPES: dict[str, Dtype] = {
    "BOOL": Dtype(8, "bool", "bool"),
    "U8": Dtype(8, "uint8", "uint8"),
    "I8": Dtype(8, "int8", "int8"),
    "F8_E5M2": Dtype(8, None, "float8_e5m2"),
    "F8_E4M3": Dtype(8, None, "float8_e4m3fn"),
    "F8_E8M0": Dtype(8, None, "float8_e8m0fnu"),
    "F8_E4M3FNUZ": Dtype(8, None, "float8_e4m3fnuz"),
    "F8_E5M2FNUZ": Dtype(8, None, "float8_e5m2fnuz"),
    "I16": Dtype(16, "int16", "int16"),
    "U16": Dtype(16, "uint16", "uint16"),
    "F16": Dtype(16, "float16", "float16"),
    "BF16": Dtype(16, None, "bfloat16"),
    "I32": Dtype(32, "int32", "int32"),
    "U32": Dtype(32, "uint32", "uint32"),
    "F32": Dtype(32, "float32", "float32"),
    "C64": Dtype(64, "complex64", "complex64"),
    "F64": Dtype(64, "float64", "float64"),
    "I64": Dtype(64, "int64", "int64"),
    "U64": Dtype(64, "uint64", "uint64"),
}
# Read in foreign files; no tensor of ours has them.
PARTS_OF_BYTES = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}

_BY_TORCH = {dtype.torch: name for name, dtype in DTYPES.items() if dtype.torch}
_BY_NUMPY = {dtype.numpy: name for name, dtype in DTYPES.items() if dtype.numpy}


def itemsize(name: str) -> int:
    """Bytes of an element. Raises KeyError for a name that is not in DTYPES."""
    return DTYPES[name].bits // 8


def of_torch(dtype: Any) -> str | None:
    """The name of a `torch.dtype`, None where safetensors has none."""
    return _BY_TORCH.get(str(dtype).removeprefix("torch."))


def of_numpy(dtype: np.dtype[Any]) -> str | None:
    """The name of a numpy dtype in this machine's byte order, None where safetensors has none."""
    return _BY_NUMPY.get(dtype.name) if dtype.isnative else None


def to_torch(name: str) -> Any:
    """The `torch.dtype`. Raises StateError where the installed torch has none."""
    import torch

    known = DTYPES[name].torch
    found = getattr(torch, known, None) if known else None
    if found is None:
        raise StateError(f"the installed torch {torch.__version__} has no {known}, which {name} needs")
    return found
