"""Memory for parities: of the generation that counts, and of the next. Made once, all its pages, before it is
needed where that can be foreseen: a first touch while it is coded costs several times the coding."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from . import limits, memory
from .generation import GROUP

Bytes = npt.NDArray[np.uint8]
GENERATIONS = 2
TOO_LARGE_TIMES = 2  # what is needed; less is not worth new pages


def least_parities(count: int, parity: int, keepers: int) -> int:
    """Bytes that a keeper needs for parities beside snapshots of `count`, at least: in the largest code group
    of so many keepers, of which fewer may come."""
    n = min(keepers, 2 * max(GROUP, parity + 1) - 1)
    m = min(parity, n - 1)
    return GENERATIONS * m * -(-count // (n - m)) if m > 0 else 0


class Room:
    """Of so many bytes, without pages until `fill` has been called often enough, or somebody writes."""

    def __init__(self, count: int) -> None:
        self.bytes = count
        self._fd = memory.make("pccl-parities", count)
        self._filled = 0
        self._mapped: Bytes | None = None

    def fill(self) -> bool:
        """A part of it; whether something is left. Raises OSError where there is no memory."""
        if self._filled < self.bytes:
            more = min(limits.FILL_BYTES, self.bytes - self._filled)
            os.posix_fallocate(self._fd, self._filled, more)
            self._filled += more
        return self._filled < self.bytes

    def rows(self, count: int, width: int) -> Bytes:
        """The first bytes, as rows of that width."""
        while self.fill():
            pass
        if self._mapped is None:
            self._mapped = memory.mapped(self._fd, self.bytes, to_write=True, new=True)
        return self._mapped[: count * width].reshape(count, width)

    def close(self) -> None:
        """Arrays of it that somebody holds stay."""
        os.close(self._fd)
        self._mapped = None


class Rooms:
    """By lane."""

    def __init__(self) -> None:
        self._used: list[Room] = []  # by the generation that counts
        self._taken: list[Room] = []  # by the one that is coded
        self._free: list[Room] = []

    @property
    def bytes(self) -> int:
        """That they have taken, or will."""
        return sum(room.bytes for room in (*self._used, *self._taken, *self._free))

    def expect(self, sizes: Sequence[int], *, exactly: bool = False) -> bool:
        """Makes a part of what lanes with so many bytes of parities will need; whether something is left.
        `exactly`: they need no more, and what is much larger, or too many, is given up."""
        wanted = [size for size in sizes if size for _ in range(GENERATIONS)]
        have = sorted(room.bytes for room in (*self._used, *self._taken, *self._free))
        try:
            if any(room.fill() for room in self._free):
                return True
        except OSError:  # it is needed by somebody else
            return False
        most = TOO_LARGE_TIMES if exactly else math.inf
        lacking = [size for size in wanted if not _take_from(have, size, most * size)]
        if lacking or exactly:
            self._give_up(have)
        if not lacking:
            return False
        if sum(lacking) > memory.available():
            return False
        self._free.append(Room(lacking[0]))
        return True

    def _give_up(self, useless: list[int]) -> None:
        """Those that are free and too small, as snapshots have grown, or there are fewer keepers; or too
        large, as more of them is identical."""
        for room in list(self._free):
            if room.bytes in useless:
                useless.remove(room.bytes)
                self._free.remove(room)
                room.close()

    def take(self, sizes: Sequence[tuple[int, int]]) -> list[Bytes]:
        """For the next generation: rows and their width, by lane. What was taken before and does not count
        is free again. Raises OSError where there is no memory."""
        self._free += self._taken
        self._taken = []
        rows = []
        for count, width in sizes:
            if not count * width:
                rows.append(np.empty((count, 0), np.uint8))
                continue
            room = self._fitting(count * width)
            self._taken.append(room)
            rows.append(room.rows(count, width))
        return rows

    def _fitting(self, count: int) -> Room:
        """Of those that are free, the smallest; where there is none, or all are much too large, as more of
        the snapshots is identical now, they give way to a new one."""
        most = TOO_LARGE_TIMES * memory.whole_units(count)
        fitting = [room for room in self._free if count <= room.bytes <= most]
        if fitting:
            room = min(fitting, key=lambda one: one.bytes)
            self._free.remove(room)
            return room
        for room in self._free:
            room.close()
        self._free = []
        if count > memory.available():  # pages are only had one by one: the first ones would come
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return Room(memory.whole_units(count))

    def count(self) -> None:
        """What was taken last is what counts: what was before is free."""
        self._free += self._used
        self._used, self._taken = self._taken, []


def _take_from(have: list[int], size: int, most: float) -> bool:
    """The smallest that suffices, out of the list, unless it has more than `most`."""
    for at, there in enumerate(have):
        if size <= there <= most:
            del have[at]
            return True
    return False
