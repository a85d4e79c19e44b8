"""Where torch keeps what it knows of a tensor: a look at some hundred of them waits for memory each time,
which can be asked for ahead."""

from __future__ import annotations

from torch import Tensor

from .fingerprint import TENSORS

# Upper bounds on 64-bit machines. Nothing is read there by us: what is more or less costs a cache line.
_PYTHON = (-16, 112)  # the collector's words stand before the object
_TENSOR_BYTES = 208
_STORAGE_BYTES = 128

Place = tuple[int, int]


def places_of(tensor: Tensor) -> list[Place]:
    """Addresses and bytes of its objects; []: of a kind that is not known."""
    if type(tensor) not in TENSORS:
        return []
    return [
        (id(tensor) + _PYTHON[0], _PYTHON[1]),
        (tensor._cdata, _TENSOR_BYTES),
        (tensor.untyped_storage()._cdata, _STORAGE_BYTES),
    ]
