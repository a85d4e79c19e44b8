"""A torch optimizer whose buffers exist, flat, before its first step, so that a joiner can receive them.

Torch optimizers create most of their state in the first step, and some give that step another meaning (SGD
starts its momentum with the whole gradient whatever the dampening is). So the layout is learned in a
rehearsal that is undone, and the state moves into flat buffers once a step has really made it.
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import UsageError
from .options import OuterFactory
from .plain_sgd import is_plain, step_in_blocks


class Slot(NamedTuple):
    """A tensor of the optimizer's state. view: its part of the flat buffer of `key`; lazy: made by a step."""

    parameter: torch.nn.Parameter
    key: str
    view: Tensor
    lazy: bool


class OuterOptimizer:
    """`buffers`: {name of the state: flat tensor}. Those parameters that have a gradient take
    part in a step().

    The constructor takes a step with zeros as gradients; set the parameters again afterwards.
    """

    def __init__(self, factory: OuterFactory, parameters: list[torch.nn.Parameter]) -> None:
        self.torch = factory(parameters)
        if not isinstance(self.torch, torch.optim.Optimizer):
            raise UsageError(f"outer_optimizer returned a {type(self.torch).__name__}, no torch optimizer")
        held = {id(p) for group in self.torch.param_groups for p in group["params"]}
        if held != {id(p) for p in parameters}:
            raise UsageError("outer_optimizer must hold exactly the parameters that it was given")
        self.described = self._describe()
        self.buffers: dict[str, Tensor] = {}
        self._slots: list[Slot] = []
        self._rehearse(parameters)

    def _rehearse(self, parameters: list[torch.nn.Parameter]) -> None:
        state = self.torch.state
        eager = {p: {k: _copy(v) for k, v in state[p].items()} for p in parameters if p in state}
        groups = [{k: deepcopy(v) for k, v in g.items() if k != "params"} for g in self.torch.param_groups]
        for p in parameters:
            p.grad = torch.zeros_like(p)
        try:
            self.torch.step()
        except TypeError as error:
            text = f"{type(self.torch).__qualname__}.step() cannot be called without arguments: {error}"
            raise UsageError(text) from error
        self._lay_out(parameters, eager)
        for group, before in zip(self.torch.param_groups, groups, strict=True):
            group.update(before)
        for p in parameters:
            p.grad = None
        self.restore([])

    def _lay_out(
        self, parameters: list[torch.nn.Parameter], eager: dict[torch.nn.Parameter, dict[str, Any]]
    ) -> None:
        found: dict[str, list[tuple[torch.nn.Parameter, Tensor]]] = {}
        for p in parameters:
            for key, value in self.torch.state.get(p, {}).items():
                if isinstance(value, Tensor):
                    found.setdefault(str(key), []).append((p, value))
                elif value is not None:
                    text = f"the outer optimizer's {key!r} is a {type(value).__name__}, no tensor"
                    raise UsageError(f"{text}, and so cannot be given to joiners")
        for key, values in sorted(found.items()):
            dtypes = {value.dtype for _, value in values}
            if len(dtypes) > 1:
                raise UsageError(f"the outer optimizer's {key!r} has several dtypes: {dtypes}")
            self.buffers[key] = torch.zeros(
                sum(v.numel() for _, v in values), dtype=dtypes.pop(), device=values[0][1].device
            )
            views = split(self.buffers[key], [value.shape for _, value in values])
            for (p, _), view in zip(values, views, strict=True):
                at_first = eager.get(p, {}).get(key)
                if isinstance(at_first, Tensor):
                    view.copy_(at_first)
                self._slots.append(Slot(p, key, view, lazy=at_first is None))

    def step(self, parameters: list[torch.nn.Parameter]) -> None:
        """`parameters`: those that have a gradient."""
        if is_plain(self.torch, parameters):
            return step_in_blocks(self.torch, {id(p) for p in parameters})
        self.torch.step()
        state, stepped = self.torch.state, {id(p) for p in parameters}
        for p, key, view, _ in self._slots:
            value = state[p][key] if id(p) in stepped else view
            if value is not view:
                view.copy_(value)
                state[p][key] = view

    def restore(self, stepped: list[torch.nn.Parameter]) -> None:
        """Makes the content of `buffers` the optimizer's state. `stepped`: who has taken a step already."""
        known = {id(p) for p in stepped}
        for p, key, view, lazy in self._slots:
            if id(p) in known or not lazy:
                self.torch.state[p][key] = view
            else:
                self.torch.state[p].pop(key, None)

    @property
    def learning_rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.torch.param_groups]

    @learning_rates.setter
    def learning_rates(self, values: list[float]) -> None:
        for group, value in zip(self.torch.param_groups, values, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(value)
            else:
                group["lr"] = value

    def _describe(self) -> str:
        """Class and settings, except the learning rates, which may change during a run."""
        groups = []
        for group in self.torch.param_groups:
            settings = {k: v for k, v in sorted(group.items()) if k not in ("params", "lr", "initial_lr")}
            groups.append((len(group["params"]), settings))
        return f"{type(self.torch).__qualname__} {groups}"


def split(flat: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    """Views of a flat tensor, one per shape, in their order."""
    views, offset = [], 0
    for shape in shapes:
        size = math.prod(shape)
        views.append(flat[offset : offset + size].view(shape))
        offset += size
    return views


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
