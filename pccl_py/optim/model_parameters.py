"""The parameters of the model that take part: their memory on this rank, and what may not change."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError
from ..tensors import check_disjoint


class ModelParameters:
    """Those that require gradients, once each, in the order of named_parameters() until order() is called.

    names, shapes   of the part that this rank holds
    global_sizes    elements of the whole parameters, which are the same on all ranks of an island
    layout          names, shapes and placements, as a text
    """

    def __init__(self, model: torch.nn.Module) -> None:
        named = _trainable(model)
        self._model = model
        self.parameters: list[torch.nn.Parameter] = [p for _, p in named]
        gathering: list[Any] = [m for m in model.modules() if hasattr(m, "reshard") and hasattr(m, "unshard")]
        self._gathering = gathering  # FSDP2's
        self.names = [name for name, _ in named]
        self.shapes = [p.shape for p in self._local()]
        _check_apart(self.names, self._local())
        self.global_sizes = [p.numel() for p in self.parameters]
        self.on_gpu = any(p.is_cuda for p in self._local())
        self.in_embedding = [_is_embedding(model, name) for name in self.names]
        self.layout = repr([(name, _layout(p)) for name, p in named])

    def order(self, indices: list[int]) -> None:
        for key in ("parameters", "names", "shapes", "global_sizes", "in_embedding"):
            values = getattr(self, key)
            setattr(self, key, [values[index] for index in indices])

    def local(self) -> list[Tensor]:
        """The memory of this rank's part of each parameter, checked."""
        found = self._local()
        for name, local, shape in zip(self.names, found, self.shapes, strict=True):
            if local.shape != shape:
                raise UsageError(f"parameter {name!r} was {list(shape)} and is {list(local.shape)} now")
        return found

    def check_same(self) -> None:
        """No parameter has come, gone, or been exchanged for another."""
        for name, parameter in zip(self.names, self.parameters, strict=True):
            if not parameter.requires_grad:
                raise UsageError(f"parameter {name!r} required a gradient and does not now: close() this")
        if self._gathering:
            return  # FSDP2 exchanges them in each pass
        now = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        known = {id(p) for p in self.parameters}
        for name, parameter in now.items():
            if id(parameter) not in known:
                raise UsageError(
                    f"parameter {name!r} is another, or requires a gradient only now: close() this"
                )

    def reshard(self) -> None:
        for module in self._gathering:
            module.reshard()  # what FSDP2 gathered in a pass without a backward is old now

    @torch.no_grad()
    def _local(self) -> list[Tensor]:
        return [p.to_local() if hasattr(p, "to_local") else p for p in self.parameters]


def _trainable(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise UsageError("the model has no parameter that requires a gradient")
    for name, p in named:
        if not p.is_floating_point():
            raise UsageError(f"parameter {name!r} is {p.dtype}; outer parameters are real numbers")
        if p.device.type == "meta":
            raise UsageError(f"parameter {name!r} is on the meta device and has no values")
    return named


def _check_apart(names: list[str], tensors: list[Tensor]) -> None:
    """Those of two names that share memory would be averaged twice, and written over each other."""
    found = [(name, t) for name, t in zip(names, tensors, strict=True) if t.is_contiguous()]
    try:
        check_disjoint([(t.data_ptr(), t.nbytes) for _, t in found], [f"parameter {n!r}" for n, _ in found])
    except UsageError as error:
        text = str(error).partition(":")[0]
        raise UsageError(f"{text}: give both modules one Parameter, which counts once") from error


def _is_embedding(model: torch.nn.Module, name: str) -> bool:
    return isinstance(model.get_submodule(name.rpartition(".")[0]), torch.nn.Embedding)


def _layout(parameter: Any) -> object:
    shape = list(parameter.shape)
    if not hasattr(parameter, "to_local"):
        return shape
    return shape, str(parameter.placements), tuple(parameter.device_mesh.shape)
