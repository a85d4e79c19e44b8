"""From arrays and tensors to addresses of equal blocks, and every check before that."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import UsageError
from ..tensors import Tensor, check_disjoint, check_torch, describe, is_torch

BLOCKS_MAX = 256  # k + m: the numbers of GF(2^8)
THREADS_MAX = 256


class Memory(NamedTuple):
    """`bytes` at `address`, with a name for messages."""

    address: int
    bytes: int
    name: str


def memory_of(tensor: Tensor, name: str, *, written: bool) -> Memory:
    """Dense host memory of any dtype. Raises UsageError."""
    if isinstance(tensor, np.ndarray):
        return _numpy(tensor, name, written)
    if is_torch(tensor):
        return _torch(tensor, name)
    raise UsageError(f"{name} is a {type(tensor).__qualname__}; pass a numpy array or a torch tensor")


def _numpy(array: np.ndarray[Any, Any], name: str, written: bool) -> Memory:
    if array.dtype.hasobject or isinstance(array, np.ma.MaskedArray):
        raise UsageError(f"{name} {describe(array)} has no plain bytes: objects and masks are not coded")
    if not array.flags.c_contiguous:
        raise UsageError(f"{name} {describe(array)} is not contiguous: pass np.ascontiguousarray(...) of it")
    if written and not array.flags.writeable:
        raise UsageError(f"{name} {describe(array)} is read-only, and would be written: pass a writable one")
    return Memory(int(array.__array_interface__["data"][0]), array.nbytes, name)


def _torch(tensor: Any, name: str) -> Memory:
    check_torch(tensor, name)
    if not tensor.is_cpu:
        raise UsageError(f"{name} is on {tensor.device}: the code works in host memory; pass tensor.cpu()")
    if not tensor.is_contiguous():
        raise UsageError(f"{name} {describe(tensor)} is not contiguous: pass tensor.contiguous()")
    if tensor.is_neg() or tensor.is_conj():
        raise UsageError(f"{name} is a view that negates or conjugates: pass tensor.resolve_neg()")
    size = tensor.numel() * tensor.element_size()
    if tensor.data_ptr() == 0 and size:
        raise UsageError(f"{name} has no memory, as tensors that a compiler traces with: pass a real one")
    return Memory(tensor.data_ptr(), size, name)


def blocks(
    value: Tensor | Sequence[Tensor | None], count: int, name: str, *, written: bool
) -> list[Memory | None]:
    """`count` equal blocks: of one buffer, or a list with one item for each. None in a list stays None."""
    if isinstance(value, list | tuple):
        if len(value) != count:
            raise UsageError(f"{name}: {len(value)} blocks; this code takes {count}")
        return [
            None if block is None else memory_of(block, f"{name}[{index}]", written=written)
            for index, block in enumerate(value)
        ]
    whole = memory_of(value, name, written=written)
    if whole.bytes % count:
        raise UsageError(f"{name} has {whole.bytes} bytes, no multiple of {count} blocks: pad it")
    size = whole.bytes // count
    return [Memory(whole.address + index * size, size, f"{name}[{index}]") for index in range(count)]


def whole(found: Sequence[Memory | None], name: str) -> list[Memory]:
    """Where every block has to be there."""
    for index, block in enumerate(found):
        if block is None:
            raise UsageError(f"{name}[{index}] is None: every block is needed here")
    return [block for block in found if block is not None]


def same_size(*several: Sequence[Memory]) -> int:
    """Bytes of each block. Raises UsageError where two differ."""
    every = [block for some in several for block in some]
    for block in every:
        if block.bytes != every[0].bytes:
            raise UsageError(
                f"{block.name} has {block.bytes} bytes and {every[0].name} {every[0].bytes}: blocks of one "
                "stripe are equally long; pad the shorter ones"
            )
    return every[0].bytes if every else 0


def disjoint(written: Sequence[Memory], read: Sequence[Memory]) -> None:
    """Raises UsageError where what is written overlaps anything."""
    every = [*written, *read]
    check_disjoint(
        [(block.address, block.bytes) for block in every],
        [block.name for block in every],
        frozenset(range(len(written), len(every))),
    )


def addresses(found: Sequence[Memory | None]) -> list[int]:
    return [0 if block is None else block.address for block in found]


def empty_blocks(count: int, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8[count, size], whose rows lie alike within 64 bytes where the size allows."""
    space = np.empty(count * size + 64, np.uint8)
    first = -space.__array_interface__["data"][0] % 64
    return space[first : first + count * size].reshape(count, size)


def index(value: object, below: int, what: str) -> int:
    """A whole number from 0 to below - 1."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if isinstance(value, bool) or not 0 <= number < below:
        raise UsageError(f"{what} {value!r}: it is a whole number from 0 to {below - 1}")
    return number


def threads_of(value: object) -> int:
    number = index(value, THREADS_MAX + 1, "threads")
    if number == 0:
        raise UsageError("threads 0: the calling thread is the first")
    return number
