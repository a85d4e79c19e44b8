"""Running statistics of batch normalization: their mean over peers, by samples, belongs to the step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from .gradient_buckets import buffer_like, scaled


class NormBuffers:
    """All running means and variances of a model, flat. Empty where there are none."""

    def __init__(self, model: torch.nn.Module) -> None:
        found = [module for module in model.modules() if isinstance(module, _NormBase)]
        several = [(m.running_mean, m.running_var) for m in found if m.track_running_stats]
        self._buffers: list[Tensor] = [b for pair in several for b in pair if b is not None]
        size = sum(b.numel() for b in self._buffers)
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        if self._buffers:
            self.inputs, self.outputs = ([buffer_like(self._buffers[0], size)] for _ in range(2))

    @torch.no_grad()
    def load(self, factor: float) -> None:
        begin = 0
        for buffer in self._buffers:
            scaled(buffer, factor, self.inputs[0][begin : begin + buffer.numel()].view(buffer.shape))
            begin += buffer.numel()

    @torch.no_grad()
    def store(self, scale: float) -> None:
        begin = 0
        for buffer in self._buffers:
            scaled(self.outputs[0][begin : begin + buffer.numel()].view(buffer.shape), scale, buffer)
            begin += buffer.numel()
