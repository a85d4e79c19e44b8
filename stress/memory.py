"""A tensor between guard bytes, at any alignment: writes outside it are seen."""

from __future__ import annotations

from typing import Any

import numpy as np

import pccl_py as pccl

GUARD_BYTES = 64
_GUARD = 0xA5

Array = np.ndarray[Any, Any]


class Guarded:
    """`array`: `count` elements of `dtype`, `shift` bytes off a multiple of 64. `shared`: in memory that
    peers of the same host map."""

    def __init__(self, dtype: str, count: int, shift: int, *, shared: bool = False) -> None:
        size = count * np.dtype(dtype).itemsize
        raw: Array = (pccl.empty if shared else np.empty)(size + 3 * GUARD_BYTES + shift, np.uint8)
        raw[:] = _GUARD
        begin = GUARD_BYTES + -raw.ctypes.data % 64 + shift
        self.array: Array = raw[begin : begin + size].view(dtype)
        self._before, self._after = raw[:begin], raw[begin + size :]

    def guards_intact(self) -> bool:
        return bool((self._before == _GUARD).all() and (self._after == _GUARD).all())
