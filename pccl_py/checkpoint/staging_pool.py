"""The staging pool of a Checkpointer: given to it, or made when the first save comes."""

from __future__ import annotations

import threading
from contextlib import suppress

from ..errors import CheckpointError, UsageError
from ..staging.pool import SLAB_BYTES, Pool
from . import native
from .foreign import lock_pages, unlock_pages
from .shard_plans import ShardContent
from .stats import Stats

SLABS_MIN = 4
SHARE_OF_FREE = 4


class SaverPool:
    """`asked`: bytes, None: as much as the first state needs. `given`: it stays its owner's."""

    def __init__(self, asked: int | None, given: Pool | None, stats: Stats) -> None:
        if asked is not None and given is not None:
            raise UsageError("pool= and pool_bytes=: a pool has its size already, leave out pool_bytes")
        self._asked, self._stats = asked, stats
        self._given = given
        self._pool: native.StagingPool | None = None
        self._locked = 0  # the address of pages that devices copy to by themselves
        self._warming: threading.Thread | None = None
        if asked is not None:
            with suppress(CheckpointError, RuntimeError):  # the first save tries again, and says why not
                self._pool = make_pool(asked, asked, warm=False)
                self._warm(self._pool)

    def _warm(self, pool: native.StagingPool) -> None:
        """Behind whatever comes before the first save. Daemon: a process that ends does not wait for it."""
        thread = threading.Thread(target=pool.warm, name="pccl-warm", daemon=True)
        thread.start()
        self._warming = thread

    def of(self, content: ShardContent, *, warm: bool = False) -> native.StagingPool:
        """For the file of this content; `warm` as of make_pool."""
        warm = warm or bool(content.foreign)
        if self._pool is None:
            if self._given is not None:
                self._pool = self._given.native
            else:
                self._pool = make_pool(self._asked, content.plan.file_bytes, warm=warm)
        if warm and self._warming is not None:
            self._warming.join()
        if content.foreign and not self._locked and lock_pages(self._pool.address, self._pool.bytes):
            self._locked = self._pool.address
        self._stats.pool_bytes = self._pool.bytes
        return self._pool

    def close(self) -> None:
        if self._warming is not None and self._pool is not None:
            self._pool.stop_warming()
            self._warming.join()
        if self._locked:
            unlock_pages(self._locked)
        if self._pool is None or self._given is not None:
            return
        with suppress(UsageError):  # a disk that hangs still has slabs: memory goes with that save
            self._pool.close()


def make_pool(asked: int | None, file_bytes: int, *, warm: bool) -> native.StagingPool:
    """`asked` bytes, or as much as one save needs, at most a quarter of the memory that is free now.

    warm    all its pages are there when this returns; else the first save makes them, behind the training
    """
    if asked is not None:
        return native.StagingPool(
            asked // SLAB_BYTES * SLAB_BYTES, populate=warm
        )  # never more than was asked for
    return native.StagingPool(_fitting(file_bytes), populate=warm)


def _fitting(file_bytes: int) -> int:
    slab = SLAB_BYTES
    wanted = (file_bytes // slab + 2) * slab
    most = max(_free_bytes() // SHARE_OF_FREE // slab, SLABS_MIN) * slab
    return max(min(wanted, most), SLABS_MIN * slab)


def _free_bytes() -> int:
    with open("/proc/meminfo") as words:
        for line in words:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0
