"""Memory for parities: made before it is needed, and never that of the generation that counts."""

from __future__ import annotations

import os

import numpy as np
import pytest

from pccl_py.snapshot import limits, memory
from pccl_py.snapshot.rooms import Room, Rooms, least_parities

MIB = 1 << 20


def made(rooms: Rooms, sizes: list[int]) -> int:
    """Steps until nothing is left to do."""
    steps = 0
    while rooms.expect(sizes):
        steps += 1
        assert steps < 100
    return steps


def address(rows: np.ndarray) -> int:
    return int(rows.__array_interface__["data"][0])


def test_what_is_expected_has_all_its_pages_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = Rooms()
    assert made(rooms, [4 * MIB, 2 * MIB]) >= 4  # two of each
    monkeypatch.setattr(memory, "make", lambda *_: pytest.fail("made while it is coded"))
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: pytest.fail("filled while it is coded"))
    for _ in range(3):
        large, small = rooms.take([(2, 2 * MIB), (1, 2 * MIB)])
        assert large.shape == (2, 2 * MIB) and small.shape == (1, 2 * MIB)
        rooms.count()
    assert not rooms.expect([4 * MIB, 2 * MIB])


def test_parities_that_count_are_not_written_over() -> None:
    rooms = Rooms()
    (first,) = rooms.take([(1, 2 * MIB)])
    first[:] = 1
    rooms.count()
    (second,) = rooms.take([(1, 2 * MIB)])
    second[:] = 2
    (again,) = rooms.take([(1, 2 * MIB)])  # the one before was given up
    assert address(again) == address(second)
    assert (first == 1).all()
    rooms.count()
    (third,) = rooms.take([(1, 2 * MIB)])
    assert address(third) == address(first)


def test_what_is_too_small_gives_way() -> None:
    rooms = Rooms()
    (small,) = rooms.take([(1, 2 * MIB)])
    rooms.count()
    (large,) = rooms.take([(3, 2 * MIB)])
    large[:] = 3
    assert (small == 0).all()
    rooms.count()
    (larger,) = rooms.take([(5, 2 * MIB)])
    larger[:] = 5
    assert (large == 3).all() and (larger == 5).all()


def test_parts_are_made_one_after_the_other() -> None:
    room = Room(2 * limits.FILL_BYTES)
    assert room.fill() and not room.fill()
    room.close()


def test_where_there_is_no_memory_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 3 * MIB)
    assert not Rooms().expect([2 * MIB])  # two of them are needed


def test_what_is_much_too_large_is_given_back() -> None:
    """Where more is identical, and is not coded: at once where nothing counts that lies in it."""
    rooms = Rooms()
    made(rooms, [12 * MIB])
    (whole,) = rooms.take([(1, 12 * MIB)])
    rooms.count()
    (part,) = rooms.take([(1, MIB)])
    rooms.count()
    assert whole.size == 12 * MIB and part.size == MIB
    assert sum(room.bytes for room in (*rooms._used, *rooms._free)) == 2 * MIB + 12 * MIB
    while rooms.expect([2 * MIB], exactly=True):
        pass
    assert sum(room.bytes for room in (*rooms._used, *rooms._free)) == 2 * 2 * MIB
    (nothing,) = rooms.take([(1, 0)])
    rooms.count()
    assert nothing.shape == (1, 0) and not rooms.expect([], exactly=True)
    assert not rooms._used and not rooms._free


def test_what_is_too_small_for_what_comes_is_given_back() -> None:
    """As the state grows, or there are fewer keepers, each width once had two rooms of its own."""
    rooms = Rooms()
    for size in (2, 4, 6, 8):
        made(rooms, [size * MIB])
        rooms.take([(1, size * MIB)])
        rooms.count()
    made(rooms, [8 * MIB])
    assert sum(room.bytes for room in (*rooms._used, *rooms._free)) <= 2 * 8 * MIB + 6 * MIB
    rooms.take([(1, 8 * MIB)])  # and was not counted: the others said no
    before = len(rooms._used) + len(rooms._taken) + len(rooms._free)
    made(rooms, [8 * MIB])
    assert len(rooms._used) + len(rooms._taken) + len(rooms._free) == before


@pytest.mark.parametrize(
    ("keepers", "parity", "wanted"),
    [(1, 1, 0), (2, 1, 200), (2, 3, 200), (6, 2, 100), (15, 1, 16), (1000, 1, 16), (30, 9, 180), (4, 0, 0)],
)
def test_what_parities_take_at_least_beside_a_state_of_100_bytes(
    keepers: int, parity: int, wanted: int
) -> None:
    """Of two generations; in a code group of 15 keepers at most, or of 19 where it has 9 parities."""
    assert least_parities(100, parity, keepers) == wanted
