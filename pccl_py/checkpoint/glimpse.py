"""A few bytes of each tensor, taken when it is captured and again when it may be written: writes that torch
does not count (`.data`, numpy views, memory shared with others) are seen by them, if not all of them.
"""

from __future__ import annotations

import ctypes

from torch import Tensor

BYTES = 16  # at the begin, in the middle and at the end: what trains changes all of a tensor
Glimpse = tuple[int, bytes, bytes, bytes]
_at = ctypes.string_at


def glimpse(tensor: Tensor) -> Glimpse | None:
    """Of contiguous memory of the host, with its address; None: it cannot be looked at from here."""
    size = tensor.nbytes
    if tensor.device.type != "cpu" or size == 0 or tensor.untyped_storage().nbytes() == 0:
        return None
    address, count = tensor.data_ptr(), min(size, BYTES)
    return address, _at(address, count), _at(address + (size - count) // 2, count), _at(
        address + size - count, count
    )
