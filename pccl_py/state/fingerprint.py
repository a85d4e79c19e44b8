"""Whether a tree of containers, tensors and plain values is still the one that was walked before.

A walk with names and boxes costs several microseconds a tensor; this look costs less than half a one.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from operator import attrgetter, is_
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import Parameter

_DICTS = frozenset({dict, OrderedDict, defaultdict})
_LISTS = frozenset({list, tuple})
PLAIN = frozenset({bool, int, float, str, bytes, type(None)})
TENSORS = frozenset({Tensor, Parameter})
# A tensor that is the same object may have got other memory or another shape: `.data = `, `set_()`, `t_()`.
# Called for all tensors of a tree at once. Of those that are dense in their order, strides say nothing more.
_TOLD: tuple[Callable[[Any], Any], ...] = (
    Tensor.data_ptr,
    attrgetter("shape"),
    Tensor.is_contiguous,
    attrgetter("dtype"),
)
_ARRAY_BYTES_MAX = 1 << 16  # of arrays that are compared: they may be written in place, so a copy is held
_COMPARED_ONE_BY_ONE_MAX = 64  # longer lists of plain values are compared as a whole


def told(tensors: Sequence[Tensor]) -> list[Any]:
    """Where they are and how they are laid out. Raises RuntimeError for what has no dense memory."""
    found: list[Any] = [list(map(ask, tensors)) for ask in _TOLD]
    dense = found[_TOLD.index(Tensor.is_contiguous)]
    found.append([one.stride() for one, is_dense in zip(tensors, dense, strict=True) if not is_dense])
    return found


class Fingerprint:
    """Of one tree. Holds its tensors, so that an address that is met again is the same memory."""

    def __init__(self, tree: Any) -> None:
        self._leaves = _Leaves(tree)
        self._told = self._leaves.told()

    def matches(self, tree: Any) -> bool:
        leaves = _Leaves(tree)
        try:
            return leaves.alike(self._leaves) and leaves.told() == self._told
        except RuntimeError:  # a tensor without dense memory is there now: the walk refuses it by name
            return False

    def has_tensors_of(self, other: Fingerprint) -> bool:
        mine, theirs = self._leaves, other._leaves
        return (
            not mine.others
            and not theirs.others
            and len(mine.tensors) == len(theirs.tensors)
            and all(map(is_, mine.tensors, theirs.tensors))
            and self._told == other._told
        )


class _Leaves:
    """`words`: all but tensors, with the containers that they and the tensors are in; `others`: tensors of
    other kinds, such as DTensors."""

    def __init__(self, tree: Any) -> None:
        self.words: list[Any] = []
        self.tensors: list[Tensor] = []
        self.others: list[Any] = []
        self._add(tree)

    def alike(self, other: _Leaves) -> bool:
        return self.words == other.words and list(map(type, self.words)) == list(map(type, other.words))

    def told(self) -> list[Any]:
        return [*told(self.tensors), list(map(_memory, self.others))]

    def _add(self, tree: Any) -> None:
        kind = type(tree)
        if kind in TENSORS:
            self.tensors.append(tree)
            self.words.append(Tensor)
        elif kind in _DICTS:
            self.words.append(tuple(tree))
            for value in tree.values():
                self._add(value)
        elif kind in _LISTS:
            self._add_list(kind, tree)
        elif kind in PLAIN:
            self.words.append(tree)
        elif kind is np.ndarray and tree.nbytes <= _ARRAY_BYTES_MAX and not tree.dtype.hasobject:
            self.words.append((kind, tree.dtype.str, tree.shape, tree.tobytes()))
        elif isinstance(tree, Tensor):
            self.others.append(tree)
            self.words.append(kind)
        else:
            self.words.append(_Unknown())

    def _add_list(self, kind: type, tree: Any) -> None:
        if len(tree) > _COMPARED_ONE_BY_ONE_MAX:
            kinds = list(map(type, tree))
            if PLAIN.issuperset(kinds):
                self.words.append((kind, kinds, list(tree)))
                return
        self.words.append((kind, len(tree)))
        for value in tree:
            self._add(value)


def _memory(tensor: Any) -> tuple[Any, ...]:
    if hasattr(tensor, "_local_tensor"):  # a DTensor: laid out anew it has another local tensor
        return (tensor._local_tensor.data_ptr(), tensor.shape, tensor.placements, tensor.device_mesh)
    return (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)


class _Unknown:
    """Of a kind that is not compared: never equal, so that the tree is walked anew."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]
