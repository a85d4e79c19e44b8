"""The gradients of a plain module, reduced while backward runs; DDP's take the same way through its hook."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Variable

from .gradient_buckets import GradientBuckets
from .step import Step


class BucketedGradients:
    """One backward pass: begin(), take() each gradient once, end()."""

    def __init__(self, buckets: GradientBuckets, step: Step) -> None:
        self.buckets = buckets
        self.step = step
        self._last = buckets.buckets[-1]
        self._factor = 0.0

    def begin(self) -> None:
        self._factor = self.step.begin()
        self.buckets.begin()

    @torch.no_grad()
    def take(self, index: int, gradient: Tensor) -> None:
        number, bucket = self.buckets.bucket_of(index)
        if self.step.has(number):
            return  # posted by a pass over the same samples that was interrupted
        self.buckets.put(index, gradient, self._factor)
        if not bucket.missing and bucket is not self._last:
            self.step.post(number, bucket.inputs, bucket.outputs)

    @torch.no_grad()
    def end(self) -> bool:
        """Whether there is a result: buckets.result(index) of each parameter."""
        for number, bucket in enumerate(self.buckets.buckets):
            for index in self.buckets.put_nothing(bucket):
                self.step.card.had_none(index)
            if bucket.missing and bucket is not self._last and not self.step.has(number):
                self.step.post(number, bucket.inputs, bucket.outputs)
        scale = self.step.finish([self._last.inputs], [self._last.outputs])
        if scale is None:
            return False
        if scale != 1:
            for bucket in self.buckets.buckets:
                bucket.outputs.mul_(scale)
        return True


class ModuleGradients:
    """Hooks on the parameters of a plain module. After backward, `p.grad` are the reduced gradients; None
    where no peer had one."""

    def __init__(self, gradients: BucketedGradients) -> None:
        self._gradients = gradients
        self._task = -1  # the backward pass that is under way
        self._hooks = [
            p.register_post_accumulate_grad_hook(partial(self._ready, index))  # type: ignore[no-untyped-call]
            for index, p in enumerate(gradients.buckets.parameters)
        ]

    def no_sync(self) -> AbstractContextManager[None]:
        return nullcontext()

    def reshard(self) -> None:
        """Nothing is sharded."""

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _ready(self, index: int, parameter: Tensor) -> None:
        if not self._gradients.step.active:
            return
        task = current_pass()
        if task != self._task:
            self._gradients.begin()
            self._task = task
            at_end_of_backward(self._end)
        assert parameter.grad is not None
        self._gradients.take(index, parameter.grad)

    def _end(self) -> None:
        self._task = -1
        card, buckets = self._gradients.step.card, self._gradients.buckets
        if not self._gradients.end():
            return
        whole = card.all_had
        for index, p in enumerate(buckets.parameters):
            p.grad = buckets.result(index) if whole or card.any_had(index) else None


def current_pass() -> int:
    """A number for the backward pass that this hook was called in."""
    return int(torch._C._current_graph_task_id())


def at_end_of_backward(call: Any) -> None:
    """Also from within such a call: then behind those that wait already."""
    Variable._execution_engine.queue_callback(call)
