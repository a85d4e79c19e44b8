"""A snapshot mapped for reading, every block checked against its checksum before anybody uses it."""

from __future__ import annotations

import mmap
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Self

from ..errors import DamagedError
from . import native
from .keeper_client import Kept
from .table import Table, decode

THREADS_MAX = 4
_SHOWN = 8


class Verified:
    """`data`: the bytes of the shard file, mapped; `table`: what they are; `words`: that as it came. Raises
    DamagedError, ProtocolError."""

    def __init__(self, kept: Kept) -> None:
        what = f"the snapshot of step {kept.step} in memory"
        self.step = kept.step
        self.words = kept.table()
        self.table: Table = decode(self.words, what)
        shard = self.table.record.shard
        size = 0 if shard is None else shard.bytes
        if size != kept.bytes:
            raise DamagedError(f"{what}: its table is of {size} bytes, there are {kept.bytes}")
        self._mapped = _map(kept) if kept.bytes else None
        self.data = memoryview(b"" if self._mapped is None else self._mapped)
        wrong = damaged_blocks(self.data, self.table.crcs, self.table.block_bytes)
        if wrong:
            self.close()
            blocks = ", ".join(map(str, wrong[:_SHOWN])) + (" ..." if len(wrong) > _SHOWN else "")
            raise DamagedError(
                f"{what}: {len(wrong)} blocks have other checksums than when they were written ({blocks})"
            )

    def close(self) -> None:
        """Where somebody still looks at the bytes, as the trace of an error does, they go with that."""
        with suppress(BufferError):
            self.data.release()
            if self._mapped is not None:
                self._mapped.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _map(kept: Kept) -> mmap.mmap:
    """Private: who writes to it writes to a copy; torch wants memory that can be written."""
    return mmap.mmap(kept.fd, kept.bytes, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)


def damaged_blocks(data: memoryview, crcs: bytes, block_bytes: int) -> list[int]:
    """Blocks whose CRC-32 is another one, rising. On several threads."""
    wanted = [crc for (crc,) in struct.iter_unpack("<I", crcs)]
    blocks = range(len(wanted))
    threads = max(min(len(wanted) // 8, THREADS_MAX, len(os.sched_getaffinity(0))), 1)

    def check(mine: range) -> list[int]:
        return [n for n in mine if native.crc32(data[n * block_bytes : (n + 1) * block_bytes]) != wanted[n]]

    if threads == 1:
        return check(blocks)
    share = -(-len(wanted) // threads)
    parts = [blocks[first : first + share] for first in range(0, len(wanted), share)]
    with ThreadPoolExecutor(threads) as workers:
        return [block for found in workers.map(check, parts) for block in found]
