"""CRC-32C (Castagnoli), as iSCSI has it: of memory, and of what is copied while it is copied."""

from __future__ import annotations

from ..tensors import Tensor
from . import native
from .memory import disjoint, memory_of, same_size, threads_of


def crc32c(data: Tensor, before: int = 0) -> int:
    """Of the bytes, or of what came before and them: crc32c(b, crc32c(a)) is that of a and b together."""
    memory = memory_of(data, "data", written=False)
    return int(native.crc32c(memory.address, memory.bytes, before))


def crc32c_combine(first: int, second: int, bytes_second: int) -> int:
    """Of a and b together, from the sums of both and the length of b."""
    return int(native.crc32c_combine(first, second, bytes_second))


def copy_crc32c(to: Tensor, data: Tensor, *, threads: int = 1) -> int:
    """Copies the bytes, and returns the CRC-32C of what was copied, in one pass over memory.

    Raises UsageError where sizes differ or memory overlaps.
    """
    target, source = memory_of(to, "to", written=True), memory_of(data, "data", written=False)
    size = same_size([target, source])
    disjoint([target], [source])
    return int(native.copy_crc32c(target.address, source.address, size, threads_of(threads)))
