"""Whether a tree of containers, tensors and plain values is still the one that was walked before.

A walk with names and boxes costs several microseconds a tensor; this look costs half a one.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from typing import Any

from torch import Tensor

_DICTS = frozenset({dict, OrderedDict, defaultdict})
_LISTS = frozenset({list, tuple})
_PLAIN = frozenset({bool, int, float, str, bytes, type(None)})
_COMPARED_ONE_BY_ONE_MAX = 64  # longer lists of plain values are compared as a whole


class Fingerprint:
    """Of one tree. Holds its tensors, so that an address that is met again is the same memory."""

    def __init__(self, tree: Any) -> None:
        leaves = _flat(tree)
        self._leaves = leaves
        self._memory = [_memory(leaf) if isinstance(leaf, Tensor) else None for leaf in leaves]

    def matches(self, tree: Any) -> bool:
        leaves = _flat(tree)
        if len(leaves) != len(self._leaves):
            return False
        for now, before, memory in zip(leaves, self._leaves, self._memory, strict=True):
            if memory is not None:
                # A tensor that is the same object may have got other memory: `.data = `, `set_()`.
                if not isinstance(now, Tensor) or _memory(now) != memory:
                    return False
            elif type(now) is not type(before) or now != before:
                return False
        return True


def _memory(tensor: Any) -> tuple[Any, ...]:
    if hasattr(tensor, "_local_tensor"):  # a DTensor: laid out anew it has another local tensor
        return (tensor._local_tensor.data_ptr(), tensor.shape, tensor.placements, tensor.device_mesh)
    return (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)


class _Unknown:
    """Of a kind that is not compared: never equal, so that the tree is walked anew."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def _flat(tree: Any) -> list[Any]:
    found: list[Any] = []
    _add(tree, found)
    return found


def _add(tree: Any, found: list[Any]) -> None:
    kind = type(tree)
    if kind in _DICTS:
        found.append(tuple(tree))
        for value in tree.values():
            if isinstance(value, Tensor):
                found.append(value)
            else:
                _add(value, found)
    elif kind in _LISTS:
        if len(tree) > _COMPARED_ONE_BY_ONE_MAX:
            kinds = list(map(type, tree))
            if _PLAIN.issuperset(kinds):
                found.append((kind, kinds, list(tree)))
                return
        found.append((kind, len(tree)))
        for value in tree:
            _add(value, found)
    elif kind in _PLAIN or isinstance(tree, Tensor):
        found.append(tree)
    else:
        found.append(_Unknown())
