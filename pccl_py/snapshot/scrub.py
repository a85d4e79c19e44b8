"""Whether what this keeper holds of the newest generation still has the bytes that it had: its trainers'
snapshots by the checksums that they were taken with, parities by those of the first time that they were read
here. On the member's thread, a little in each round with nothing else to do, once a generation has lived for
a while: one that the next snapshot replaces at once is not worth a core's time beside the training. All of it
where something came out wrong.

What is damaged counts as lost, and is brought back or made anew.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import DamagedError
from . import native, table
from .coding import Coding
from .generation import Lane
from .share import Bytes, Share

logger = logging.getLogger("pccl_py.keeper")
PIECE_BYTES = 1 << 20  # of a parity, for each checksum
ROUND_BYTES = 8 << 20  # 80 MB/s where there is nothing to do: a core reads it in 1 ms of every 100
SETTLED_S = 1.0  # a generation of that age may stay


@dataclass(slots=True)
class _Piece:
    """`lane`: of a snapshot; None: of a parity. `crc32` None: it was not read yet."""

    data: Bytes
    crc32: int | None
    lane: Lane | None

    def is_right(self) -> bool:
        found = native.crc32(self.data.data)
        if self.crc32 is None:
            self.crc32 = found
        return found == self.crc32


class Scrub:
    """`some` and `all` check what `Coding` holds now. `now`: seconds, of a clock that is never set."""

    def __init__(self, coding: Coding, now: Callable[[], float] = time.monotonic) -> None:
        self._coding, self._now = coding, now
        self._share: Share | None = None
        self._since = 0.0  # when that share was first seen
        self._pieces: list[_Piece] | None = None  # of that share; None: nobody has looked at it
        self._next = 0

    def some(self, count: int = ROUND_BYTES) -> None:
        """The next pieces, of so many bytes, if the generation is old enough."""
        self._take()
        if self._now() - self._since < SETTLED_S:
            return
        pieces = self._cut()
        while pieces and count > 0:
            piece = pieces[self._next]
            self._next = (self._next + 1) % len(pieces)
            if not piece.is_right() and self._damaged(piece):
                return
            count -= max(piece.data.nbytes, 1)
            if self._next == 0:
                return

    def all(self) -> None:
        """Snapshots first: where a parity is damaged, too, the share does not count any more."""
        self._take()
        lost: set[Lane | None] = set()
        for piece in sorted(self._cut(), key=lambda one: one.lane is None):
            if piece.lane not in lost and not piece.is_right() and self._damaged(piece):
                lost.add(piece.lane)

    def _take(self) -> None:
        share = self._coding.share
        if share is not self._share:
            self._share, self._pieces, self._next, self._since = share, None, 0, self._now()

    def _cut(self) -> list[_Piece]:
        """Parities come first: until one is read, nobody knows what it has to be."""
        if self._pieces is None:
            share = self._share
            self._pieces = [] if share is None else _of_parities(share) + _of_snapshots(share)
        return self._pieces

    def _damaged(self, piece: _Piece) -> bool:
        """False: it was written over, as it may be."""
        coding, lane, share = self._coding, piece.lane, self._share
        if lane is None:
            logger.warning("a parity here has another checksum than when it was made: it counts as lost")
            coding.share = self._share = self._pieces = None
            return True
        if not coding.calls.ask(lambda: share is not None and coding.protection.intact((lane,))):
            return False
        logger.warning("step %d of trainer %r is damaged here: it counts as lost", lane.step, lane.trainer)
        coding.calls.ask(lambda: coding.protection.spoil(lane))
        return True


def _of_snapshots(share: Share) -> list[_Piece]:
    pieces = []
    for lane, data in zip(share.lanes, share.data, strict=True):
        try:
            told = table.decode(share.tables[lane.trainer], f"the table of trainer {lane.trainer!r}")
        except DamagedError as error:
            logger.warning("%s", error)
            continue
        crcs = [crc for (crc,) in struct.iter_unpack("<I", told.crcs)]
        size = told.block_bytes
        pieces += [
            _Piece(data[: lane.bytes][size * at : size * (at + 1)], crc, lane) for at, crc in enumerate(crcs)
        ]
    return pieces


def _of_parities(share: Share) -> list[_Piece]:
    cut = [
        row[at : at + PIECE_BYTES]
        for rows in share.parities
        for row in rows
        for at in range(0, row.nbytes, PIECE_BYTES)
    ]
    return [_Piece(data, None, None) for data in cut]
