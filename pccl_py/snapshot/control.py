"""The control page of one trainer's snapshots: which of two buffers is the newest complete one, said by one
store of eight bytes. Written by the keeper alone; trainers map it for reading.

    0    "PCCLSNAP", version (4 bytes)
    64   the commit word: (how many commits before) << 8 | slot + 1; 0: none
    128, 256   records of both slots, with a checksum each

The record is written first, then the word: at any instant the word names a slot whose record is whole.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from . import limits, memory
from .messages import SLOTS

PAGE = 4096
_MAGIC = struct.Struct("<8sI")
_WORD = 64 // 8
_RECORD = struct.Struct("<QQQIId")
_RECORDS = (128, 256)


@dataclass(frozen=True, slots=True)
class Record:
    """A complete snapshot: its step, the bytes of its buffer and of its table, the table's CRC-32, and when
    it was completed (seconds since 1970)."""

    step: int
    bytes: int
    table_bytes: int
    crc32: int
    time: float


class Control:
    """`make` on the keeper's side, `open` on any other, where it cannot be written."""

    def __init__(self, fd: int, mapped: mmap.mmap) -> None:
        self.fd = fd
        self._mapped = mapped
        self._words = memoryview(mapped).cast("Q")

    @classmethod
    def make(cls) -> Self:
        fd = memory.make("pccl-control", PAGE)
        mapped = mmap.mmap(fd, PAGE)
        mapped[: _MAGIC.size] = _MAGIC.pack(b"PCCLSNAP", limits.PROTOCOL)
        with suppress(OSError):  # Linux before 5.1
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, memory.F_SEAL_FUTURE_WRITE)
        return cls(fd, mapped)

    @classmethod
    def open(cls, fd: int) -> Self:
        """Takes the descriptor over. Raises ValueError for what is no control page."""
        if memory.size_of(fd) != PAGE:
            raise ValueError("it is no memory of one page")
        mapped = mmap.mmap(fd, PAGE, prot=mmap.PROT_READ)
        if mapped[: _MAGIC.size] != _MAGIC.pack(b"PCCLSNAP", limits.PROTOCOL):
            raise ValueError("it is no control page")
        return cls(fd, mapped)

    def committed(self) -> int:
        """The slot of the newest complete snapshot; -1: none."""
        slot = (self._words[_WORD] & 0xFF) - 1
        return slot if 0 <= slot < SLOTS else -1

    def record(self, slot: int) -> Record | None:
        """None: the slot has no complete snapshot."""
        raw = self._mapped[_RECORDS[slot] : _RECORDS[slot] + _RECORD.size]
        step, count, table_bytes, crc, own, time = _RECORD.unpack(raw)
        if own != _sum(step, count, table_bytes, crc, time):
            return None
        return Record(step, count, table_bytes, crc, time)

    def write(self, slot: int, record: Record) -> None:
        one = record
        own = _sum(one.step, one.bytes, one.table_bytes, one.crc32, one.time)
        raw = _RECORD.pack(one.step, one.bytes, one.table_bytes, one.crc32, own, one.time)
        self._mapped[_RECORDS[slot] : _RECORDS[slot] + _RECORD.size] = raw

    def clear(self, slot: int) -> None:
        """Of a slot that is not the committed one."""
        self._mapped[_RECORDS[slot] : _RECORDS[slot] + _RECORD.size] = bytes(_RECORD.size)

    def commit(self, slot: int) -> None:
        """-1: there is none any more."""
        count = (self._words[_WORD] >> 8) + 1 & (1 << 56) - 1
        self._words[_WORD] = count << 8 | slot + 1

    def close(self) -> None:
        self._words.release()
        self._mapped.close()
        os.close(self.fd)


def _sum(step: int, count: int, table_bytes: int, crc: int, time: float) -> int:
    """Never that of zeros."""
    return zlib.crc32(_RECORD.pack(step, count, table_bytes, crc, 0, time), 1)
