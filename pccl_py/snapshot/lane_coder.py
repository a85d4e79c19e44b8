"""Coding of one lane, by all its keepers: whole, or what has changed since the generation before."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..coded_calls import CodedSum
from ..communicator import Communicator
from ..values.limits import BLOCK_BYTES
from . import unchanged
from .differences import Differences
from .generation import Area
from .share import Bytes, Share
from .unchanged import Piece, Way


class LaneCoder:
    """Codes one lane, an area at a time. `rows`: of this keeper's outputs, in the order of `sums`."""

    def __init__(
        self,
        comm: Communicator,
        share: Share,
        lane: int,
        ranks: Mapping[str, int],
        rate: int | None,
        timeout: float,
    ) -> None:
        self._comm, self._share, self._lane, self._ranks = comm, share, lane, ranks
        self._rate, self._timeout = rate, timeout
        generation = share.generation
        keeper = next(name for name, rank in ranks.items() if rank == comm.rank)
        found = generation.share_of(keeper)
        assert found is not None
        group, slot, _ = found
        self._k, self._m = generation.code(group)
        self._sums = generation.parities(lane, ranks)
        self._rows = generation.parity_rows(group, slot)

    def anew(self) -> None:
        for area in self._areas():
            parities = self._share.rows(self._lane, area)
            self._sum_up(
                self._sums, self._blocks(self._share, area), [parities[row] for row in self._rows], area.width
            )

    def differences(self, told: Differences) -> None:
        generation = self._share.generation
        for area in self._areas():
            for whole in unchanged.pieces(
                generation, self._lane, area, told.changed[self._lane], BLOCK_BYTES
            ):
                ways, sums = unchanged.ways(generation, whole, self._sums, self._ranks)
                for piece in unchanged.cut(generation, whole, ways):
                    self._code_piece(area, piece, told.before, ways, sums)

    def _code_piece(
        self, area: Area, piece: Piece, before: Share, ways: list[Way], sums: list[CodedSum]
    ) -> None:
        columns = slice(piece.first, piece.last)
        new = [block[columns] for block in self._blocks(self._share, area)]
        wanted = {term.block for one in sums for term in one.terms if term.rank == self._comm.rank}
        old = [block[columns] for block in self._blocks(before, area)]
        changes = [
            np.bitwise_xor(a, b) if self._k + at in wanted else a[:0]
            for at, (a, b) in enumerate(zip(new, old, strict=True))
        ]
        own = [way for way, one in zip(ways, self._sums, strict=True) if one.owner == self._comm.rank]
        parities, earlier = self._share.rows(self._lane, area), before.rows(self._lane, area)
        made = [parities[row][columns] for row in self._rows]
        there = [earlier[row][columns] for row in self._rows]
        if sums:
            out = [target for way, target in zip(own, made, strict=True) if way is not Way.SAME]
            self._sum_up(sums, new + changes, out, piece.last - piece.first)
        for way, target, one in zip(own, made, there, strict=True):
            if way is Way.SAME:
                target[:] = one
            elif way is Way.DIFFERENCE:
                np.bitwise_xor(target, one, out=target)

    def _areas(self) -> list[Area]:
        return self._share.generation.areas(self._lane) if self._sums else []

    def _blocks(self, share: Share, area: Area) -> list[Bytes]:
        """Of data; a keeper that codes with nobody gives none."""
        return share.blocks(self._lane, self._k, area)[: self._k] if self._m else []

    def _sum_up(self, sums: list[CodedSum], blocks: list[Bytes], out: list[Bytes], width: int) -> None:
        self._comm.coded_reduce_scatter(
            blocks, out, sums, block_bytes=width, rate_limit=self._rate, timeout=self._timeout
        )
