"""Byte planes: all first bytes of the elements, then all second ones, ...: exponents side by side
compress."""

from __future__ import annotations

import numpy as np

WIDTHS = (1, 2, 4, 8)


def split(data: bytes, width: int) -> bytes:
    """The planes of elements of `width` bytes; what is left of a broken last element stays at the end."""
    whole = len(data) - len(data) % width
    if width == 1 or whole == 0:
        return data
    planes = np.frombuffer(data, np.uint8, whole).reshape(-1, width).T
    return planes.tobytes() + data[whole:]


def join(data: bytes, width: int) -> bytes:
    """The inverse of `split`."""
    whole = len(data) - len(data) % width
    if width == 1 or whole == 0:
        return data
    planes = np.frombuffer(data, np.uint8, whole).reshape(width, -1).T
    return planes.tobytes() + data[whole:]
