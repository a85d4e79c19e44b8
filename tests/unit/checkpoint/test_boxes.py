"""Which part of a tensor who has: against numpy's slices."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pccl_py.checkpoint.boxes import Box, cover, dense_strides, intersect, runs, whole
from pccl_py.errors import StateError
from tests.unit.checkpoint.steps import CALM

SHAPES = st.lists(st.integers(1, 5), max_size=4).map(tuple)


@st.composite
def boxes_of(draw: st.DrawFn, shape: tuple[int, ...]) -> Box:
    start = tuple(draw(st.integers(0, size)) for size in shape)
    return Box(
        start, tuple(draw(st.integers(0, size - first)) for size, first in zip(shape, start, strict=True))
    )


@st.composite
def two_boxes(draw: st.DrawFn) -> tuple[tuple[int, ...], Box, Box]:
    shape = draw(SHAPES)
    return shape, draw(boxes_of(shape)), draw(boxes_of(shape))


@st.composite
def cut_up(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Box]]:
    """A tensor cut again and again at random places of random dimensions."""
    shape = draw(SHAPES)
    parts = [whole(shape)]
    for _ in range(draw(st.integers(0, 12)) if shape else 0):
        box = parts.pop(draw(st.integers(0, len(parts) - 1)))
        axis = draw(st.integers(0, len(shape) - 1))
        at = draw(st.integers(0, box.shape[axis]))
        low, high = list(box.shape), list(box.shape)
        low[axis], high[axis] = at, box.shape[axis] - at
        begin = list(box.start)
        begin[axis] += at
        pieces = [Box(box.start, tuple(low)), Box(tuple(begin), tuple(high))]
        parts += [piece for piece in pieces if piece.size]
    return shape, draw(st.permutations(parts))


@CALM
@given(two_boxes())
def test_an_intersection_is_what_both_have(case: tuple[tuple[int, ...], Box, Box]) -> None:
    shape, a, b = case
    marks = np.zeros(shape, np.int8)
    marks[a.slices()] += 1
    marks[b.slices()] += 1
    both = intersect(a, b)
    expected = np.zeros(shape, np.int8)
    if both is not None:
        assert both.inside(shape) and both.size > 0
        expected[both.slices()] = 1
    assert np.array_equal(marks == 2, expected == 1)


@CALM
@given(cut_up())
def test_what_is_cut_up_covers(case: tuple[tuple[int, ...], list[Box]]) -> None:
    assert cover(*case)


@CALM
@given(st.data())
def test_cover_counts_as_marking_each_element_does(data: st.DataObject) -> None:
    shape, parts = data.draw(cut_up())
    for _ in range(data.draw(st.integers(1, 3))):
        parts[data.draw(st.integers(0, len(parts) - 1))] = data.draw(boxes_of(shape))
    marks = np.zeros(shape, np.int8)
    for box in parts:
        marks[box.slices()] += 1
    assert cover(shape, parts) == (bool((marks == 1).all()) and all(box.size for box in parts))


def test_cover_of_windmills_empty_tensors_and_strangers() -> None:
    windmill = [Box((0, 0), (1, 2)), Box((0, 2), (2, 1)), Box((2, 1), (1, 2)), Box((1, 0), (2, 1))]
    assert cover((3, 3), [*windmill, Box((1, 1), (1, 1))])
    assert not cover((3, 3), windmill)
    assert cover((), [Box((), ())]) and not cover((), []) and not cover((), [Box((), ())] * 2)
    assert cover((0, 3), []) and cover((0, 3), [Box((0, 0), (0, 3))])
    assert not cover((2, 2), [Box((0,), (4,))])
    assert not cover((4,), [Box((-1,), (5,))])
    assert not cover((4,), [Box((0,), (4,)), Box((1,), (0,))])
    assert cover((1 << 40, 1 << 20), [Box((0, 0), (1 << 39, 1 << 20)), Box((1 << 39, 0), (1 << 39, 1 << 20))])


def test_cover_of_many_pieces_is_quick_or_refused() -> None:
    rows = [Box((row, 0), (1, 8)) for row in range(65_536)]
    assert cover((65_536, 8), rows)
    assert not cover((65_536, 8), [*rows[:-1], rows[0]])
    grid = [Box((row, column), (1, 1)) for row in range(256) for column in range(256)]
    assert cover((256, 256), grid)
    columns = 4096
    shifted = [Box((0, c), (c + 1, 1)) for c in range(columns)]
    shifted += [Box((c + 1, c), (columns - c, 1)) for c in range(columns)]
    with pytest.raises(StateError, match="irregularly"):
        cover((columns + 1, columns), shifted)


def copied(runs_: list[Any], source: bytes, target: bytearray) -> None:
    for offset, address, size, rows, file_stride, memory_stride in runs_:
        for row in range(rows):
            begin, to = offset + row * file_stride, address + row * memory_stride
            target[to : to + size] = source[begin : begin + size]


@CALM
@given(two_boxes(), st.sampled_from([1, 2, 4]), st.integers(0, 30), st.data())
def test_runs_copy_what_numpy_slices_would(
    case: Any, itemsize: int, offset: int, data: st.DataObject
) -> None:
    shape, piece, wanted = case
    dtype = np.dtype(f"u{itemsize}")
    full = np.arange(1, 1 + int(np.prod(shape)), dtype=dtype).reshape(shape)
    file = b"x" * offset + full[piece.slices()].tobytes()
    axes = data.draw(st.permutations(range(len(shape))))  # memory in another order of dimensions
    room = np.zeros([wanted.shape[axis] + data.draw(st.integers(0, 2)) for axis in axes], dtype)
    view = room[(..., *(slice(0, wanted.shape[axis]) for axis in axes))].transpose(np.argsort(axes))
    memory = bytearray(room.tobytes())
    copied(runs(piece, wanted, itemsize, offset, view.strides), file, memory)

    common = intersect(piece, wanted)
    if common is not None:
        here = tuple(
            slice(first - origin, first - origin + size)
            for first, origin, size in zip(common.start, wanted.start, common.shape, strict=True)
        )
        view[here] = full[common.slices()]
    assert bytes(memory) == room.tobytes()


def test_runs_are_few_and_long() -> None:
    assert runs(whole((100, 8, 4)), whole((100, 8, 4)), 4, 10) == [(10, 0, 12_800, 1, 12_800, 12_800)]
    rows = runs(Box((10, 0), (20, 8)), Box((15, 0), (5, 8)), 2, 0, address=64)
    assert rows == [(80, 64, 80, 1, 80, 80)]
    columns = runs(whole((100, 8)), Box((0, 4), (100, 4)), 4, 0)
    assert columns == [(16, 0, 16, 100, 32, 16)]
    middle = runs(whole((3, 100, 8)), Box((0, 0, 4), (3, 100, 4)), 4, 0)
    assert len(middle) == 1 and middle[0].rows == 300
    block = runs(whole((3, 100, 8)), Box((0, 10, 4), (3, 50, 4)), 4, 0)
    assert len(block) == 3 and all(run.rows == 50 for run in block)
    backwards = runs(whole((4,)), whole((4,)), 1, 0, (-1,), address=3)
    assert backwards == [(0, 3, 1, 4, 1, -1)]
    assert runs(whole((4,)), Box((4,), (0,)), 1, 0) == []
    assert runs(whole(()), whole(()), 8, 5) == [(5, 0, 8, 1, 8, 8)]


def test_dense_strides_are_numpy_s() -> None:
    for shape in [(), (3,), (2, 3, 4), (5, 1, 2)]:
        assert dense_strides(shape, 4) == np.zeros(shape, np.float32).strides
    assert all(a >= b for a, b in pairwise(dense_strides((7, 6, 5), 2)))
