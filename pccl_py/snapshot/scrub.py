"""Whether what this keeper holds of the newest generation still has the bytes that it had: its trainers'
snapshots by the checksums that they were taken with, parities by those of when they were made. On the
member's thread, a little in each round with nothing else to do; all of it where something came out wrong.

What is damaged counts as lost, and is brought back or made anew.
"""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass

from ..errors import DamagedError
from . import native, table
from .coding import Coding
from .generation import Lane
from .share import Bytes, Share

logger = logging.getLogger("pccl_py.keeper")
PIECE_BYTES = 1 << 20  # of a parity, for each checksum
ROUND_BYTES = 16 << 20  # 160 MB/s where there is nothing to do: 1 to 2 % of a core


@dataclass(frozen=True, slots=True)
class _Piece:
    """`lane`: of a snapshot; None: of a parity."""

    data: Bytes
    crc32: int
    lane: Lane | None

    @property
    def right(self) -> bool:
        return native.crc32(self.data.data) == self.crc32


class Scrub:
    """`some` and `all` check what `Coding` holds now."""

    def __init__(self, coding: Coding) -> None:
        self._coding = coding
        self._share: Share | None = None
        self._pieces: list[_Piece] = []
        self._next = 0

    def some(self, count: int = ROUND_BYTES) -> None:
        """The next pieces, of so many bytes."""
        self._take()
        while self._pieces and count > 0:
            piece = self._pieces[self._next]
            self._next = (self._next + 1) % len(self._pieces)
            if not piece.right and self._damaged(piece):
                return
            count -= max(piece.data.nbytes, 1)
            if self._next == 0:
                return

    def all(self) -> None:
        self._take()
        lost: set[Lane | None] = set()
        for piece in self._pieces:
            if piece.lane not in lost and not piece.right and self._damaged(piece):
                lost.add(piece.lane)

    def _take(self) -> None:
        """Of a new generation all checksums of its parities are made here, soon after they were."""
        share = self._coding.share
        if share is self._share:
            return
        self._share, self._next = share, 0
        self._pieces = [] if share is None else _of_snapshots(share) + _of_parities(share)

    def _damaged(self, piece: _Piece) -> bool:
        """False: it was written over, as it may be."""
        coding, lane, share = self._coding, piece.lane, self._share
        if lane is None:
            logger.warning("a parity here has another checksum than when it was made: it counts as lost")
            coding.share = self._share = None
            self._pieces = []
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
    return [_Piece(data, native.crc32(data.data), None) for data in cut]
