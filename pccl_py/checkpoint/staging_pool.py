"""How large the staging pool is."""

from __future__ import annotations

from . import native

SLAB_BYTES = 16 << 20  # as the core cuts a pool: csrc/staging
SLABS_MIN = 4
SHARE_OF_FREE = 4


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
