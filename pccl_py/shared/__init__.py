"""Tensors whose memory the peers of the same host read where it lies.

    gradient = pccl_py.empty((1024, 1024), torch.bfloat16)
    comm.all_reduce(gradient)

They are ordinary tensors and arrays; views and slices of them are read in place as well. The memory is freed
when the last view of it is gone, by other processes within a second, and by the kernel when they are killed.
A forked child shares it with its parent, as memory of multiprocessing: what one writes, the other sees.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from .. import _core
from ..errors import UsageError
from ..logs import tie
from ..tensors import Tensor, is_torch

tie(_core)

Like = Literal["numpy", "torch"]
Shape = int | Sequence[int]


def empty(shape: Shape, dtype: Any = "float32", *, like: Like | None = None) -> Tensor:
    """An array or a tensor of that shape, in row order, for whatever is to be reduced on one host.

    dtype   of numpy or torch, or its name
    like    "numpy" or "torch"; None: by the dtype, and numpy for a name

    Where no shared memory is left (descriptors, /dev/shm of a container), it is ordinary memory, and peers
    read it in the next best way. Raises UsageError for a dtype that is no plain bytes, MemoryError.
    """
    sizes = _sizes(shape)
    if like is None:
        like = "torch" if _is_torch_dtype(dtype) else "numpy"
    if like == "torch":
        return _torch_tensor(sizes, dtype)
    if like == "numpy":
        return _numpy_array(sizes, dtype)
    raise UsageError(f"like={like!r}: it is 'numpy' or 'torch'")


def zeros(shape: Shape, dtype: Any = "float32", *, like: Like | None = None) -> Tensor:
    """As empty(), filled with zeros. Raises UsageError and MemoryError as empty() does."""
    return empty(shape, dtype, like=like)  # the kernel's memory is zeroed, and never used twice


def share(tensor: Tensor) -> Tensor:
    """A copy of a host tensor or array, of the same shape and dtype, as empty() makes them, without gradient.

    Raises UsageError for anything else, or a dtype that is no plain bytes;
    MemoryError.
    """
    if is_torch(tensor):
        copy = empty(tuple(tensor.shape), tensor.dtype)
        copy.copy_(tensor.detach())
        return copy
    if isinstance(tensor, np.ndarray):
        copy = empty(tensor.shape, tensor.dtype)
        np.copyto(copy, tensor)
        return copy
    raise UsageError(f"share() takes a numpy array or a torch tensor, not a {type(tensor).__qualname__}")


def shared_bytes() -> int:
    """Memory of this process that its tensors of empty() hold, in bytes."""
    return int(_core.shared_bytes())


def _sizes(shape: Shape) -> tuple[int, ...]:
    try:
        sizes = (
            (operator.index(shape),) if not isinstance(shape, Sequence) else tuple(map(operator.index, shape))
        )
    except TypeError:
        raise UsageError(f"shape={shape!r}: it takes whole numbers") from None
    if any(size < 0 for size in sizes):
        raise UsageError(f"shape={shape!r}: no size is negative")
    return sizes


def _is_torch_dtype(dtype: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(dtype, torch.dtype)


def _numpy_array(sizes: tuple[int, ...], dtype: Any) -> Tensor:
    try:
        known = np.dtype(dtype)
    except TypeError:
        raise UsageError(
            f"numpy knows no dtype {dtype!r}; bfloat16 comes with ml_dtypes, or as torch"
        ) from None
    if known.hasobject or known.itemsize == 0:
        raise UsageError(f"dtype {known} has no plain bytes")
    memory = _core.TensorMemory(math.prod(sizes) * known.itemsize)
    return np.asarray(memory).view(known).reshape(sizes)


def _torch_tensor(sizes: tuple[int, ...], dtype: Any) -> Tensor:
    import torch

    known = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if isinstance(dtype, np.dtype | type):
        known = getattr(torch, np.dtype(dtype).name, None)
    if not isinstance(known, torch.dtype):
        raise UsageError(f"torch knows no dtype {dtype!r}")
    count = math.prod(sizes)
    if count == 0:
        return torch.empty(sizes, dtype=known)
    memory = _core.TensorMemory(count * known.itemsize)
    return torch.frombuffer(memory, dtype=known).reshape(sizes)


__all__ = ["Like", "empty", "share", "shared_bytes", "zeros"]
