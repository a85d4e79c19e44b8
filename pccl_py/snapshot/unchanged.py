"""What a snapshot has at the same place as the one that was coded before it is not sent again: frozen layers,
embeddings of words that did not occur. Pure, and the same at all keepers of a run.

A parity is a sum. Where all its blocks have changed it is made anew; where some have, of these the difference
between new and old bytes is added to the old parity, since p + c (new - old) is what it would be anew; where
none has, the old one is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt

from ..coded_calls import CodedSum
from .generation import WIDTH_UNIT, Area, Generation
from .identical import Checksums

PIECES_MAX = 32  # of an area: each is an operation at least
DIFFERENCE_BYTES = 16 << 20  # that a keeper makes at once: they take memory beside all else
LEAST_SAVED = 1 / 16  # of what is sent; less is not worth looking for

Flags = npt.NDArray[np.bool_]
# By slot: of each checksum block of a lane's snapshots whether it has changed.
Changed = Mapping[tuple[int, int], Flags]


class Way(Enum):
    """How a parity's columns come about."""

    ANEW = "anew"
    DIFFERENCE = "difference"
    SAME = "same"


BlockPlace = tuple[int, int, int]  # group, slot and number of a block


@dataclass(frozen=True, slots=True)
class Piece:
    """Columns [first, last) of all blocks of an area. `changed`: blocks that have; `empty`: blocks without
    bytes there, which count as zeros."""

    first: int
    last: int
    changed: frozenset[BlockPlace]
    empty: frozenset[BlockPlace]


def lie_alike(before: Generation, now: Generation) -> bool:
    """Blocks and parities of the same keepers, at the same places."""
    return _places(before) == _places(now) and before.identical == now.identical


def _places(generation: Generation) -> object:
    return generation.parity, [
        [(share.keeper, [(lane.trainer, lane.bytes) for lane in share.lanes]) for share in group.shares]
        for group in generation.groups
    ]


def may_be_same(before: Checksums, now: Checksums) -> Flags:
    """Of each block: whether it has the checksum that it had."""
    if before.crcs is None or now.crcs is None or before.bytes != now.bytes:
        return np.zeros(0 if now.crcs is None else len(now.crcs), np.bool_)
    same: Flags = before.crcs == now.crcs
    return same


def pieces(generation: Generation, lane: int, area: Area, changed: Changed, block_bytes: int) -> list[Piece]:
    """All columns of an area, rising. `changed`: of slots that have that lane."""
    step = -(-area.width // (PIECES_MAX * block_bytes)) * block_bytes
    found: list[Piece] = []
    for first in range(0, area.width, step):
        one = _piece(generation, area, first, min(first + step, area.width), changed, block_bytes)
        if found and (found[-1].changed, found[-1].empty) == (one.changed, one.empty):
            one = Piece(found.pop().first, one.last, one.changed, one.empty)
        found.append(one)
    return found


def _piece(
    generation: Generation, area: Area, first: int, last: int, changed: Changed, block_bytes: int
) -> Piece:
    differ, empty = set(), set()
    for number, group in enumerate(generation.groups):
        for slot in range(len(group.shares)):
            flags = changed.get((number, slot), np.empty(0, np.bool_))
            for block in range(generation.code(number)[0]):
                begin = area.first + block * area.width
                end = min(begin + last, area.last)
                there = flags[(begin + first) // block_bytes : -(-end // block_bytes)]
                if begin + first >= end or not len(there):
                    empty.add((number, slot, block))
                elif there.any():
                    differ.add((number, slot, block))
    return Piece(first, last, frozenset(differ), frozenset(empty))


def cut(generation: Generation, piece: Piece, ways: Sequence[Way]) -> list[Piece]:
    """Into pieces for which there is room where differences are made, of each of a keeper's k blocks."""
    if Way.DIFFERENCE not in ways:
        return [piece]
    most = max(generation.code(number)[0] for number in range(len(generation.groups)))
    width = max(DIFFERENCE_BYTES // most // WIDTH_UNIT, 1) * WIDTH_UNIT
    starts = range(piece.first, piece.last, width)
    ends = (min(at + width, piece.last) for at in starts)
    return [replace(piece, first=first, last=last) for first, last in zip(starts, ends, strict=True)]


def ways(
    generation: Generation, piece: Piece, sums: Sequence[CodedSum], ranks: Mapping[str, int]
) -> tuple[list[Way], list[CodedSum]]:
    """Of each of the lane's parities, `sums`, how it comes about; what is summed up. The differences of a
    keeper's blocks are numbered behind its k blocks."""
    place_of = {
        ranks[share.keeper]: (number, slot)
        for number, group in enumerate(generation.groups)
        for slot, share in enumerate(group.shares)
    }
    found: list[Way] = []
    left: list[CodedSum] = []
    for one in sums:
        blocks = {term: (*place_of[term.rank], term.block) for term in one.terms}
        terms = tuple(term for term, place in blocks.items() if place in piece.changed)
        if not terms:
            found.append(Way.SAME)
        elif all(place in piece.changed or place in piece.empty for place in blocks.values()):
            found.append(Way.ANEW)
            left.append(CodedSum(one.owner, terms))
        else:
            k = generation.code(place_of[one.owner][0])[0]
            found.append(Way.DIFFERENCE)
            left.append(CodedSum(one.owner, tuple(term._replace(block=k + term.block) for term in terms)))
    return found, left


def saved(
    generation: Generation, lane: int, changed: Changed, ranks: Mapping[str, int], block_bytes: int
) -> float:
    """Of what the blocks of a lane send, that part which they need not. 0: there is nothing to send."""
    whole = sent = 0
    sums = generation.parities(lane, ranks)
    for area in generation.areas(lane):
        whole += area.width * sum(len(one.terms) for one in sums)
        for piece in pieces(generation, lane, area, changed, block_bytes):
            _, left = ways(generation, piece, sums, ranks)
            sent += (piece.last - piece.first) * sum(len(one.terms) for one in left)
    return (whole - sent) / whole if whole else 0.0
