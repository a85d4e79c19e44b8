"""A tensor between guard bytes, at any alignment: writes outside it are seen."""

from __future__ import annotations

from typing import Any

import numpy as np

GUARD_BYTES = 64
_GUARD = 0xA5

Array = np.ndarray[Any, Any]


class Guarded:
    """`array`: `count` elements of `dtype`, `shift` bytes off a multiple of 64."""

    def __init__(self, dtype: str, count: int, shift: int) -> None:
        size = count * np.dtype(dtype).itemsize
        raw = np.full(size + 3 * GUARD_BYTES + shift, _GUARD, np.uint8)
        begin = GUARD_BYTES + -raw.ctypes.data % 64 + shift
        self.array: Array = raw[begin : begin + size].view(dtype)
        self._before, self._after = raw[:begin], raw[begin + size :]

    def guards_intact(self) -> bool:
        return bool((self._before == _GUARD).all() and (self._after == _GUARD).all())
