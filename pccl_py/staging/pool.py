"""Memory that tensors are copied to on their way to a disk or to another process."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from .. import _core
from ..errors import UsageError

SLAB_BYTES = 16 << 20  # as the core cuts a pool: csrc/staging
SLABS_MIN = 2


class Pool:
    """`Pool(1 << 30)`: of this process. `Pool(fd=memfd)`: in a memfd of yours, all of it, that other
    processes may map as well; the descriptor stays yours and may be closed at once. Nobody may shrink it
    while it is in use (seal it: F_SEAL_SHRINK), for that ends the process that copies.

    bytes   whole slabs of 16 MiB are used, at least two; None, with fd: as much as the memfd has
    warm    all pages are there when this returns; False: they come with the first copy, on its thread.
            Those of a memfd are always there

    Several Checkpointers may use one pool; close it after them. Raises UsageError for what is no memory of
    that size, CheckpointError where the system does not give it.
    """

    def __init__(self, bytes: int | None = None, *, fd: int | None = None, warm: bool = True) -> None:
        if bytes is None and fd is None:
            raise UsageError("Pool(): how many bytes? Or give a memfd as fd=")
        if fd is not None and bytes is None:
            bytes = _size_of(fd)
        slabs = (bytes or 0) // SLAB_BYTES
        if slabs < SLABS_MIN:
            least = SLABS_MIN * SLAB_BYTES
            raise UsageError(f"a pool of {bytes} bytes: at least {least} ({least >> 20} MiB), please")
        self.native = _core.StagingPool(slabs * SLAB_BYTES, fd=-1 if fd is None else fd, populate=warm)

    @property
    def bytes(self) -> int:
        """Its size, used or not."""
        return self.native.bytes

    @property
    def free_bytes(self) -> int:
        """That no save uses now."""
        return self.native.free * SLAB_BYTES

    def close(self) -> None:
        """Gives the memory back. UsageError while a save uses it."""
        self.native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _size_of(fd: int) -> int:
    try:
        return os.fstat(fd).st_size
    except OSError as error:
        raise UsageError(f"fd={fd}: {error.strerror}; give the descriptor of a memfd") from None
