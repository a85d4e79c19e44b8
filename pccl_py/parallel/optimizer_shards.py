"""The state of an inner optimizer as named tensors that exist before its first step, so that a joiner can
receive them. Torch optimizers make most of it in the first step: the layout is learned in a rehearsal that is
undone, on the shards of this rank and without any communication.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError
from ..staging import fence
from .island_layout import local, shortened

Parameter = torch.nn.Parameter
# What a step counts with, on the host or in some optimizers as a number: these follow the step itself.
_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")


class OptimizerShards:
    """`names`: of the parameters that the optimizer may hold. Touched by the training thread only.

    `tensors()` before a synchronization, `take()` after it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, names: Mapping[Parameter, str]) -> None:
        self._optimizer = optimizer
        self._names = dict(names)
        self._held = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        if strangers := [list(p.shape) for p in self._held if p not in self._names]:
            raise UsageError(f"the optimizer holds a parameter {strangers[0]} that is not the model's")
        self._blank = self._rehearse()  # {(parameter, key): tensor}, for what the next step would make
        slots = sorted(self._blank, key=lambda slot: (self._names[slot[0]], slot[1]))
        self._slots = slots
        self._present = torch.zeros(len(slots), dtype=torch.int64)
        self._rates = torch.zeros(len(optimizer.param_groups), dtype=torch.float64)

    def layout(self) -> str:
        """Class and settings, except the learning rates, which are shared."""
        found = []
        for group in self._optimizer.param_groups:
            settings = {k: v for k, v in sorted(group.items()) if k not in ("params", "lr", "initial_lr")}
            words = " ".join(f"{key}={value}" for key, value in settings.items())
            found.append(f"{len(group['params'])} parameters {words}")
        return shortened(f"optimizer {type(self._optimizer).__qualname__}, {'; '.join(found)}")

    def tensors(self) -> dict[str, Tensor]:
        """By name: this rank's memory of the state, of blanks where there is none yet, of learning rates."""
        found = {"optimizer learning rates": self._rates}
        rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        self._rates.copy_(torch.tensor(rates, dtype=torch.float64))
        if self._slots:
            found["optimizer state made"] = self._present
        for index, (p, key) in enumerate(self._slots):
            value = self._optimizer.state.get(p, {}).get(key)
            self._present[index] = value is not None
            tensor = self._blank[p, key] if value is None else value
            found[shortened(f"optimizer {key} {self._names[p]}")] = local(tensor)
        return found

    def take(self) -> None:
        """What the elected island's optimizer has, this one has now; what it has not, is made by a step."""
        state = self._optimizer.state
        for (p, key), present in zip(self._slots, self._present.tolist(), strict=True):
            if not present:
                state[p].pop(key, None)
            elif state[p].get(key) is None:
                state[p][key] = self._blank[p, key]
                self._blank[p, key] = self._blank[p, key].clone()
        for group, rate in zip(self._optimizer.param_groups, self._rates.tolist(), strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    # ---- rehearsal -----------------------------------------------------------------------------------------

    def _rehearse(self) -> dict[tuple[Parameter, str], Tensor]:
        optimizer, state = self._optimizer, self._optimizer.state
        before = {p: {k: _copy(v) for k, v in state[p].items()} for p in self._held if p in state}
        groups = [{k: deepcopy(v) for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
        kept = [(p, local(p).clone(), p.grad) for p in self._held]
        fence.before_write()  # its hook is among those that do not run
        try:
            with torch.no_grad(), _without_hooks(optimizer):
                for p in self._held:
                    p.grad = torch.zeros_like(p)
                optimizer.step()
            made = {p: dict(state.get(p, {})) for p in self._held}
        except TypeError as error:
            text = f"{type(optimizer).__qualname__}.step() cannot be called without arguments: {error}"
            raise UsageError(text) from error
        finally:
            for p, values, gradient in kept:
                local(p).copy_(values)
                p.grad = gradient
                state.pop(p, None)
            for p, values_of in before.items():
                state[p] = values_of
            for group, settings in zip(optimizer.param_groups, groups, strict=True):
                group.update(settings)
        return {(p, str(k)): _blank(str(k), v) for p, values_of in made.items() for k, v in values_of.items()
                if v is not None}  # fmt: skip


@contextmanager
def _without_hooks(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Nobody shall count the rehearsal as a step."""
    hooks = {name: getattr(optimizer, name) for name in _HOOKS}
    for name in _HOOKS:
        setattr(optimizer, name, OrderedDict())
    try:
        yield
    finally:
        for name, value in hooks.items():
            setattr(optimizer, name, value)


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else deepcopy(value)


def _blank(key: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        text = f"the optimizer's {key!r} is a {type(value).__name__}, no tensor"
        raise UsageError(f"{text}, and so cannot be given to a joining island")
    blank = value.clone()
    local(blank).zero_()
    return blank
