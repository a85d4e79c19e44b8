"""Nested dicts, lists and tuples of numbers and tensors, as of state_dict(): taken apart, put together.

Pure. The order of leaves is that of the containers, so it is the same where the containers are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ..errors import UsageError

Plain = bool | int | float | str | None


def leaves_of(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(path, leaf) of all leaves. Raises UsageError for one that is neither plain nor a tensor."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves_of(value, f"{path}.{key}")
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from leaves_of(value, f"{path}.{index}")
    elif isinstance(tree, bool | int | float | str | Tensor) or tree is None:
        yield path, tree
    else:
        raise UsageError(
            f"{path} is a {type(tree).__qualname__}: newcomers can be given numbers, texts and tensors"
        )


def plain_of(tree: Any, path: str) -> list[Plain]:
    """The leaves that are no tensors."""
    return [leaf for _, leaf in leaves_of(tree, path) if not isinstance(leaf, Tensor)]


def tensors_of(tree: Any, path: str) -> dict[str, Tensor]:
    return {where: leaf for where, leaf in leaves_of(tree, path) if isinstance(leaf, Tensor)}


def copied(tree: Any) -> Any:
    """The same containers with tensors of their own, each once: schedulers name one tensor several times."""
    if isinstance(tree, dict):
        changed = tree.copy()
        for key, value in tree.items():
            changed[key] = copied(value)
        return changed
    if isinstance(tree, list | tuple):
        return type(tree)(copied(value) for value in tree)
    return tree.detach().clone() if isinstance(tree, Tensor) else tree


def with_plain(tree: Any, plain: Iterator[Plain]) -> Any:
    """The same containers and tensors with other plain leaves. Raises UsageError where they are too few."""
    if isinstance(tree, dict):
        changed = tree.copy()  # of its own type
        for key, value in tree.items():
            changed[key] = with_plain(value, plain)
        return changed
    if isinstance(tree, list | tuple):
        return type(tree)(with_plain(value, plain) for value in tree)
    if isinstance(tree, Tensor):
        return tree
    try:
        return next(plain)
    except StopIteration:
        raise UsageError("the run's schedulers or parameter groups are others than this peer's") from None
