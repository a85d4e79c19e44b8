"""Boxes: what part of a global tensor a rank holds, saves or asks for; and which bytes two of them share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import NamedTuple

from ..errors import StateError

# Of `cover`: comparisons of a box with a slab. Any grid of 65,536 boxes needs less; a few seconds at most.
WORK_MAX = 8_000_000


@dataclass(frozen=True, slots=True)
class Box:
    """Elements start[d] <= index[d] < start[d] + shape[d] of a tensor, for each dimension d."""

    start: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def stop(self) -> tuple[int, ...]:
        return tuple(first + size for first, size in zip(self.start, self.shape, strict=True))

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    def slices(self) -> tuple[slice, ...]:
        """For `array[box.slices()]`."""
        return tuple(slice(first, last) for first, last in zip(self.start, self.stop, strict=True))

    def inside(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape has all of it."""
        return len(self.start) == len(self.shape) == len(shape) and all(
            first >= 0 and size >= 0 and first + size <= whole
            for first, size, whole in zip(self.start, self.shape, shape, strict=True)
        )


def whole(shape: Sequence[int]) -> Box:
    """All of a tensor."""
    return Box((0,) * len(shape), tuple(shape))


def intersect(a: Box, b: Box) -> Box | None:
    """What both have; None if that is nothing. Boxes of one tensor: the numbers of dimensions are equal."""
    start = tuple(max(pair) for pair in zip(a.start, b.start, strict=True))
    stop = tuple(min(pair) for pair in zip(a.stop, b.stop, strict=True))
    if any(first >= last for first, last in zip(start, stop, strict=True)):
        return None
    return Box(start, tuple(last - first for first, last in zip(start, stop, strict=True)))


def cover(shape: Sequence[int], boxes: Sequence[Box], work: list[int] | None = None) -> bool:
    """Whether the boxes are disjoint, not empty, and together all of a tensor of this shape. A tensor without
    elements is covered by empty boxes and by none.

    `work` counts comparisons, over several calls if they share it. Raises StateError where it goes beyond
    WORK_MAX: for boxes that are cut so irregularly that the answer would take minutes.
    """
    if not all(box.inside(shape) for box in boxes):
        return False
    sizes = [box.size for box in boxes]
    if sum(sizes) != math.prod(shape):
        return False
    if math.prod(shape) == 0:
        return True
    spans = [(box.start, box.stop) for box in boxes]
    return 0 not in sizes and _covered(tuple(shape), spans, work if work is not None else [0])


_Span = tuple[tuple[int, ...], tuple[int, ...]]


def _covered(shape: tuple[int, ...], spans: list[_Span], work: list[int]) -> bool:
    """Whether the spans cover [0, shape): between two neighbouring cuts of the first dimension the same spans
    are there, and these have to cover the other dimensions."""
    if len(spans) == 1:
        return spans[0] == ((0,) * len(shape), shape)
    if not shape or not spans:
        return False
    cuts = sorted({0, shape[0], *(start[0] for start, _ in spans), *(stop[0] for _, stop in spans)})
    begins = sorted(spans, key=lambda span: span[0][0])
    present: list[_Span] = []
    begun = 0
    for low, _ in pairwise(cuts):
        work[0] += len(present) + 1
        if work[0] > WORK_MAX:
            raise StateError(
                f"{len(spans)} pieces of a tensor are cut too irregularly to check that they cover it"
            )
        present = [span for span in present if span[1][0] > low]
        while begun < len(begins) and begins[begun][0][0] <= low:
            present.append(begins[begun])
            begun += 1
        if not _covered(shape[1:], [(start[1:], stop[1:]) for start, stop in present], work):
            return False
    return True


class Run(NamedTuple):
    """`rows` rows of `bytes`, equally far apart in a file and in memory. Everything in bytes."""

    file_offset: int
    address: int
    bytes: int
    rows: int
    file_stride: int
    memory_stride: int


def dense_strides(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Bytes from an element to the next of each dimension, last dimension fastest, without holes."""
    strides = [itemsize] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)


def runs(
    piece: Box,
    wanted: Box,
    itemsize: int,
    file_offset: int,
    strides: Sequence[int] | None = None,
    address: int = 0,
) -> list[Run]:
    """How to read what `piece` has of `wanted`: few and long runs.

    `piece` lies dense in a file from `file_offset`; `wanted` is memory, its first element at `address`,
    and whose dimensions are `strides` bytes apart (None: dense). Strides may be negative; 0 only where there
    is one element.
    """
    common = intersect(piece, wanted)
    if common is None:
        return []
    in_memory = tuple(strides) if strides is not None else dense_strides(wanted.shape, itemsize)
    in_file = dense_strides(piece.shape, itemsize)
    for first, part, other, here, there in zip(
        common.start, piece.start, wanted.start, in_file, in_memory, strict=True
    ):
        file_offset += (first - part) * here
        address += (first - other) * there
    axes = _merged(list(zip(common.shape, in_file, in_memory, strict=True)))
    bytes_ = itemsize
    if axes and axes[-1][1] == axes[-1][2] == itemsize:
        bytes_ *= axes.pop()[0]
    if not axes:
        return [Run(file_offset, address, bytes_, 1, bytes_, bytes_)]
    longest = max(range(len(axes)), key=lambda axis: axes[axis][0])
    count, file_stride, memory_stride = axes.pop(longest)
    return [
        Run(file_offset + here, address + there, bytes_, count, file_stride, memory_stride)
        for here, there in _offsets(axes)
    ]


_Axis = tuple[int, int, int]  # elements, stride in the file, stride in memory


def _merged(axes: list[_Axis]) -> list[_Axis]:
    """The same places by fewer dimensions: an outer one that goes on where the inner ends is one with it."""
    kept: list[_Axis] = []
    for count, here, there in axes:
        if count == 1:
            continue
        if kept and kept[-1][1] == here * count and kept[-1][2] == there * count:
            kept[-1] = (kept[-1][0] * count, here, there)
        else:
            kept.append((count, here, there))
    return kept


def _offsets(axes: list[_Axis]) -> Iterator[tuple[int, int]]:
    for index in product(*(range(count) for count, _, _ in axes)):
        yield (
            sum(i * axis[1] for i, axis in zip(index, axes, strict=True)),
            sum(i * axis[2] for i, axis in zip(index, axes, strict=True)),
        )
