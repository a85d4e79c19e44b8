"""Whether a module's or an optimizer's state_dict() would still say what it did, without making it: for some
hundred tensors that costs more than all the rest of a save's call.

Each look is made together with the walk that it spares, and is of torch's own state_dict() only: `of` gives
None where somebody has changed what that says. Comparing dicts compares what they hold by identity first;
what is another object and equal, such as a tensor of one element, is told apart by its memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from itertools import chain
from operator import itemgetter, methodcaller
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.nn import Module

from .fingerprint import PLAIN, TENSORS, Fingerprint, told

_HELD = itemgetter(
    "_parameters",
    "_buffers",
    "_modules",
    "_non_persistent_buffers_set",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
)
_OVERRIDABLE = frozenset({"state_dict", "_save_to_state_dict"})
_values = methodcaller("values")


class Look(Protocol):
    def alike(self) -> bool:
        """Nothing has changed since this was made but the values of tensors."""


class ModuleLook:
    """Holds the modules and their tensors, so that an address that is met again is the same memory."""

    def __init__(self, module: Module) -> None:
        self._modules = list(_all_modules(module))
        self._dicts = [one.__dict__ for one in self._modules]
        self._kinds = list(map(type, self._modules))
        self._sizes = list(map(len, self._dicts))  # an attribute more may be another state_dict()
        self._held = [tuple(map(copy, held)) for held in map(_HELD, self._dicts)]
        self._told = told(self._tensors())

    @classmethod
    def of(cls, module: Module) -> Self | None:
        for one in _all_modules(module):
            tensors = {*one._parameters.values(), *one._buffers.values()} - {None}
            if not _is_plain(one) or not TENSORS.issuperset(map(type, tensors)):
                return None
        return cls(module)

    def alike(self) -> bool:
        try:
            return (
                list(map(type, self._modules)) == self._kinds
                and list(map(len, self._dicts)) == self._sizes
                and list(map(_HELD, self._dicts)) == self._held
                and told(self._tensors()) == self._told
            )
        except RuntimeError:  # two tensors that are not the same object are compared
            return False

    def _tensors(self) -> list[Tensor]:
        dicts = chain.from_iterable((held["_parameters"], held["_buffers"]) for held in self._dicts)
        return [one for one in chain.from_iterable(map(_values, dicts)) if one is not None]


def _all_modules(module: Module) -> Iterable[Module]:
    """In the order of state_dict(), one that is there twice both times."""
    yield module
    for child in module._modules.values():
        if child is not None:
            yield from _all_modules(child)


def _is_plain(module: Module) -> bool:
    """torch's own state_dict(), and nobody listens to it."""
    kind = type(module)
    return (
        kind.state_dict is Module.state_dict
        and kind._save_to_state_dict is Module._save_to_state_dict
        and kind.get_extra_state is Module.get_extra_state
        and not module._state_dict_hooks
        and not module._state_dict_pre_hooks
        and _OVERRIDABLE.isdisjoint(module.__dict__)
    )


class StateLook:
    """Of an optimizer's state: a dict of tensors and plain values for each parameter."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._order = _numbered(optimizer)
        self._keys = list(optimizer.state)
        self._ids = list(map(id, self._keys))
        self._kept = [dict(kept) for kept in optimizer.state.values()]
        self._kinds, tensors = self._leaves()
        self._told = told(tensors)

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer) -> Self | None:
        known = TENSORS | PLAIN
        kept = list(optimizer.state.values())
        if any(type(one) is not dict or not known.issuperset(map(type, one.values())) for one in kept):
            return None
        return cls(optimizer)

    def alike(self) -> bool:
        state = self._optimizer.state
        try:
            if (
                not has_plain_state_dict(self._optimizer)
                or _numbered(self._optimizer) != self._order
                or list(map(id, state)) != self._ids
                or list(state.values()) != self._kept
            ):
                return False
            kinds, tensors = self._leaves()
            return kinds == self._kinds and told(tensors) == self._told
        except RuntimeError:
            return False

    def _leaves(self) -> tuple[list[type], list[Tensor]]:
        leaves = list(chain.from_iterable(map(_values, self._optimizer.state.values())))
        return list(map(type, leaves)), [leaf for leaf in leaves if type(leaf) in TENSORS]


class GroupsLook:
    """Of an optimizer's groups: its options, and which parameters they are for."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._fingerprint = Fingerprint(self._groups())
        self._parameters = [group["params"][:] for group in optimizer.param_groups]  # their ids stay theirs

    def alike(self) -> bool:
        return has_plain_state_dict(self._optimizer) and self._fingerprint.matches(self._groups())

    def _groups(self) -> list[dict[str, Any]]:
        groups = self._optimizer.param_groups
        return [
            {**group, "params": ids} for group, ids in zip(groups, _numbered(self._optimizer), strict=True)
        ]


def has_plain_state_dict(optimizer: torch.optim.Optimizer) -> bool:
    """torch's own, and nobody listens to it."""
    return (
        type(optimizer).state_dict is torch.optim.Optimizer.state_dict
        and not optimizer._optimizer_state_dict_pre_hooks
        and not optimizer._optimizer_state_dict_post_hooks
        and "state_dict" not in optimizer.__dict__
    )


def _numbered(optimizer: torch.optim.Optimizer) -> list[list[int]]:
    """The parameters, by id, in the order in which state_dict() numbers them."""
    return [list(map(id, group["params"])) for group in optimizer.param_groups]
