"""Who counts the steps of an inner optimizer, and who moves a parameter: one object of the family each."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, MutableMapping
from typing import Protocol

import torch
from torch.utils.weak import WeakIdKeyDictionary

from ..errors import UsageError


class Owner(Protocol):
    def _on_step(self) -> None: ...


_inners: weakref.WeakKeyDictionary[torch.optim.Optimizer, weakref.ref[Owner]] = weakref.WeakKeyDictionary()
_parameters: MutableMapping[torch.nn.Parameter, weakref.ref[Owner]] = WeakIdKeyDictionary()


def counting(ref: weakref.ref[Owner]) -> Callable[..., None]:
    """A hook that does not keep its owner alive."""

    def hook(*_: object) -> None:
        owner = ref()
        if owner is not None:
            owner._on_step()

    return hook


def claim(inner: torch.optim.Optimizer, owner: Owner) -> None:
    """Two that count the steps of one optimizer would each undo what the other does to the model."""
    if (other := _owner(_inners.get(inner))) is not None:
        raise UsageError(f"inner has its {other!r} already: close() that one first, or use it")
    _inners[inner] = weakref.ref(owner)


def claim_parameters(parameters: Iterable[torch.nn.Parameter], owner: Owner) -> None:
    found = list(parameters)
    for parameter in found:
        other = _owner(_parameters.get(parameter))
        if other is not None and other is not owner:
            raise UsageError(f"the model belongs to {other!r} already: close() that one first, or use it")
    for parameter in found:
        _parameters[parameter] = weakref.ref(owner)


def release(inner: torch.optim.Optimizer, parameters: Iterable[torch.nn.Parameter], owner: Owner) -> None:
    if _owner(_inners.get(inner)) is owner:
        del _inners[inner]
    for parameter in parameters:
        if _owner(_parameters.get(parameter)) is owner:
            del _parameters[parameter]


def _owner(ref: weakref.ref[Owner] | None) -> Owner | None:
    return None if ref is None else ref()
