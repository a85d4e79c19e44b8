"""FSDP2's gradient shards, through `FSDPModule.set_all_reduce_hook`: each peer of a group has the same shard.

FSDP has taken the mean over the ranks of its island when the hook gets a shard. The result is written back
when all shards of the step are committed; FSDP's gradients are views of what the hook was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from ..errors import UsageError
from .gradient_buckets import buffer_like, scaled
from .module_gradients import at_end_of_backward, current_pass
from .step import Step


class FsdpGradients:
    """A part of the step for each module that fully_shard() was called on, in the order of modules()."""

    def __init__(self, model: torch.nn.Module, parameters: Iterable[torch.nn.Parameter], step: Step) -> None:
        self._parameters = list(parameters)
        self._step = step
        self._task = -1
        self._factor = 0.0
        self._shards: dict[int, Tensor] = {}  # as FSDP gave them, in this backward pass
        self._buffers: dict[int, tuple[Tensor, Tensor]] = {}  # of each module: inputs, outputs
        self._modules = [m for m in model.modules() if isinstance(m, FSDPModule)]
        for number, module in enumerate(self._modules):
            module.set_all_reduce_hook(partial(self._ready, number))

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        for module in self._modules:
            module.set_requires_gradient_sync(False, recurse=False)
        try:
            yield
        finally:
            for module in self._modules:
                module.set_requires_gradient_sync(True, recurse=False)

    def close(self) -> None:
        for module in self._modules:
            module.set_all_reduce_hook(_nothing)

    def reshard(self) -> None:
        """Parameters are their shards again, whatever forward left."""
        for module in self._modules:
            module.reshard()

    @torch.no_grad()
    def _ready(self, number: int, shard: Tensor) -> None:
        if not self._step.active:
            return
        if shard.dtype == torch.float16:
            raise UsageError("FSDP divides float16 gradients behind the hook: use reduce_dtype=torch.float32")
        task = current_pass()
        if task != self._task:
            self._factor = self._step.begin()
            self._task = task
            self._shards.clear()
            at_end_of_backward(self._end)
        self._shards[number] = shard
        if self._step.has(number):
            return
        if number not in self._buffers or self._buffers[number][0].numel() != shard.numel():
            self._buffers[number] = (buffer_like(shard, shard.numel()), buffer_like(shard, shard.numel()))
        inputs, outputs = self._buffers[number]
        scaled(shard, self._factor, inputs)
        self._step.post(number, inputs, outputs)

    @torch.no_grad()
    def _end(self) -> None:
        self._task = -1
        for number in self._buffers.keys() - self._shards.keys():  # backward did not come to it here
            if not self._step.has(number):
                inputs, outputs = self._buffers[number]
                self._step.post(number, inputs.zero_(), outputs)
        scale = self._step.finish([], [])
        if scale is None:
            return
        for number, shard in self._shards.items():
            torch.mul(self._buffers[number][1], scale, out=shard)
        self._check_views()
        self._shards.clear()

    def _check_views(self) -> None:
        known = {shard.untyped_storage().data_ptr() for shard in self._shards.values()}
        for p in self._parameters:
            if p.grad is not None and local_of(p.grad).untyped_storage().data_ptr() not in known:
                self._step.failure = UsageError(
                    "FSDP's gradients are copies of what it reduced: parameters in the dtype of reduction "
                    "(float32, with MixedPrecisionPolicy(param_dtype=...) for less) and "
                    "optimizer.zero_grad() after each step are needed"
                )
                return


def local_of(tensor: Tensor) -> Tensor:
    """This rank's part of a DTensor; a plain tensor as it is."""
    found: Any = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    assert isinstance(found, Tensor)
    return found


def _nothing(shard: Tensor) -> None:
    """Hooks cannot be taken off."""
