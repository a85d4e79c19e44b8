"""One part of a training state, of each kind: what of it is saved, and how it takes back what was saved.

`tree()` is what the part's state_dict() says: containers of plain values and of tensors, which are the live
ones wherever the part hands those out. `halves` names what of the tree is looked at by itself; `look` of such
a half tells later, for less than the tree costs, whether it is still the same. None: only the tree tells.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import StateError
from .look import GroupsLook, Look, ModuleLook, StateLook, has_plain_state_dict


class _WholePart:
    """Looked at as a whole, by its tree."""

    def halves(self) -> tuple[str, ...]:
        return ("",)

    def look(self, half: str) -> Look | None:
        return None


class ModulePart(_WholePart):
    """A torch module. Its tensors are read into; what it keeps as extra state it is told."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def tree(self) -> dict[str, Any]:
        """The parameters themselves, where that can be asked for: views of them cost more than this."""
        if type(self.module).state_dict is torch.nn.Module.state_dict:
            return self.module.state_dict(keep_vars=True)
        return self.module.state_dict()

    def look(self, half: str) -> Look | None:
        return ModuleLook.of(self.module)

    def blank(self, path: tuple[Any, ...], dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor | None:
        return None

    def take(self, tree: dict[str, Any]) -> None:
        """Tensors are in place already; load_state_dict would copy each onto itself."""
        extra = {key: value for key, value in tree.items() if key.endswith("_extra_state")}
        if extra:
            self.module.load_state_dict(extra, strict=False)


class OptimizerPart:
    """A torch optimizer. What its first step would make is made here, laid out like its parameter."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def tree(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def halves(self) -> tuple[str, ...]:
        return ("state", "param_groups") if has_plain_state_dict(self.optimizer) else tuple(self.tree())

    def look(self, half: str) -> Look | None:
        if not has_plain_state_dict(self.optimizer):
            return None
        return GroupsLook(self.optimizer) if half == "param_groups" else StateLook.of(self.optimizer)

    def written(self) -> Iterator[Tensor]:
        """The tensors that its step() writes, and nothing else of this library's making."""
        for group in self.optimizer.param_groups:
            yield from group["params"]
        for state in self.optimizer.state.values():
            if isinstance(state, dict):
                yield from (value for value in state.values() if isinstance(value, Tensor))

    def blank(self, path: tuple[Any, ...], dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor | None:
        """A new tensor for ("state", number of the parameter, key): with its layout if it has its shape."""
        match path:
            case ("state", int() as number, str()):
                parameter = self._parameters().get(number)
            case _:
                return None
        if parameter is None:
            raise StateError(
                f"the optimizer has {len(self._parameters())} parameters, the saved one has a number "
                f"{number}: it was of another model"
            )
        if tuple(parameter.shape) == shape:
            return torch.empty_like(parameter, dtype=dtype, requires_grad=False)
        return None

    def _parameters(self) -> dict[int, Tensor]:
        held = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        return dict(enumerate(held))

    def take(self, tree: dict[str, Any]) -> None:
        groups, ours = tree.get("param_groups"), self.optimizer.param_groups
        if not isinstance(groups, list) or len(groups) != len(ours):
            raise StateError("the saved optimizer has other parameter groups: build it as it was saved")
        self.optimizer.load_state_dict(tree)
        self._keep_dtypes(tree["state"])

    def _keep_dtypes(self, saved: Mapping[Any, Any]) -> None:
        """torch casts what it is given to the parameter's dtype: float32 moments of a bfloat16 parameter
        would lose what they were kept in float32 for."""
        for number, parameter in self._parameters().items():
            held = self.optimizer.state.get(parameter)
            if not isinstance(held, dict):
                continue
            for key, value in saved.get(number, {}).items():
                cast = held.get(key)
                if isinstance(value, Tensor) and isinstance(cast, Tensor) and cast.dtype != value.dtype:
                    held[key] = value


class StatefulPart(_WholePart):
    """Anything else with state_dict() and load_state_dict(): schedulers, samplers, outer optimizers."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def tree(self) -> Any:
        return self.held.state_dict()

    def blank(self, path: tuple[Any, ...], dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor | None:
        return None

    def take(self, tree: Any) -> None:
        self.held.load_state_dict(tree)


class PlainPart(_WholePart):
    """A dict or list of tensors and plain values. Tensors are read into; values of the outermost are set, and
    those that were not saved stay."""

    def __init__(self, held: dict[Any, Any] | list[Any]) -> None:
        self.held = held

    def tree(self) -> Any:
        return self.held

    def blank(self, path: tuple[Any, ...], dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor | None:
        return None

    def take(self, tree: Any) -> None:
        if isinstance(self.held, dict):
            self.held.update(tree)
        else:
            self.held[:] = tree


def _has_device() -> bool:
    return torch.cuda.is_available() and bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


class RandomPart(_WholePart):
    """The random number generators of Python, numpy and torch, of the host and of the current CUDA device."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}  # in one place, or each save would plan its file anew

    def halves(self) -> tuple[str, ...]:
        """Each by itself: who trains draws from one of them, and the words of the others stay."""
        return ("python", "numpy", "torch", *(("cuda",) if _has_device() else ()))

    def tree(self) -> dict[str, Any]:
        words: dict[str, Any] = {
            "python": random.getstate(),
            "numpy": np.random.get_state(legacy=True),
            "torch": self._keep("torch", torch.get_rng_state()),
        }
        if _has_device():
            words["cuda"] = self._keep("cuda", torch.cuda.get_rng_state())
        return words

    def _keep(self, name: str, now: Tensor) -> Tensor:
        kept = self._kept.setdefault(name, now)
        return kept if kept is now else kept.copy_(now)

    def blank(self, path: tuple[Any, ...], dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor | None:
        return torch.empty(shape, dtype=dtype)

    def take(self, tree: Mapping[str, Any]) -> None:
        random.setstate(tree["python"])
        np.random.set_state(tree["numpy"])
        torch.set_rng_state(tree["torch"])
        if "cuda" in tree and torch.cuda.is_available():
            torch.cuda.set_rng_state(tree["cuda"])


AnyPart = ModulePart | OptimizerPart | StatefulPart | PlainPart | RandomPart


def part_of(name: str, value: Any) -> AnyPart:
    if isinstance(value, ModulePart | OptimizerPart | StatefulPart | PlainPart | RandomPart):
        return value
    if isinstance(value, torch.nn.Module):
        return ModulePart(_unwrapped(value))
    if isinstance(value, torch.optim.Optimizer):
        return OptimizerPart(value)
    if callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None)):
        return StatefulPart(value)
    if isinstance(value, dict | list):
        return PlainPart(value)
    raise StateError(
        f"{name} is a {type(value).__qualname__}: pass a module, an optimizer, a dict or list, or anything "
        "with state_dict() and load_state_dict()"
    )


def _unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """The user's own module: names in a checkpoint do not say how it was run."""
    while True:
        inner = getattr(module, "_orig_mod", None)  # of torch.compile
        if inner is None and isinstance(module, torch.nn.parallel.DistributedDataParallel):
            inner = module.module
        if not isinstance(inner, torch.nn.Module):
            return module
        module = inner
