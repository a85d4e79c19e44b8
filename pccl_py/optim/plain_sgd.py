"""A step of torch.optim.SGD with the same bits in less time: block by block, so that a block is in the cache
from its first operation to its last.

Not torch's `fused=True`: its bits depend on where a tensor is cut, and so on a peer's number of threads.
"""

from __future__ import annotations

from typing import Any

import torch

BLOCK = 1 << 15  # elements: 128 KiB, and as much of gradient and momentum


def is_plain(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> bool:
    """Whether step_in_blocks() is what its step() would do: SGD itself, its buffers made, on the host."""
    if type(optimizer) is not torch.optim.SGD or optimizer._optimizer_step_pre_hooks:
        return False
    if optimizer._optimizer_step_post_hooks:
        return False
    for group in optimizer.param_groups:
        modes = ("fused", "foreach", "differentiable")
        if any(group[mode] for mode in modes) or isinstance(group["lr"], torch.Tensor):
            return False
        if group["momentum"] and any(
            optimizer.state[p].get("momentum_buffer") is None for p in group["params"] if p.grad is not None
        ):
            return False
    return all(p.device.type == "cpu" and p.is_contiguous() for p in parameters)


@torch.no_grad()
def step_in_blocks(optimizer: torch.optim.Optimizer, chosen: set[int]) -> None:
    for group in optimizer.param_groups:
        for p in group["params"]:
            if id(p) in chosen:
                _step(group, p, optimizer.state[p].get("momentum_buffer"))


def _step(group: dict[str, Any], parameter: torch.Tensor, momentum: torch.Tensor | None) -> None:
    assert parameter.grad is not None
    parts = [torch.split(parameter.view(-1), BLOCK), torch.split(parameter.grad.reshape(-1), BLOCK)]
    if group["momentum"] and momentum is not None:
        parts.append(torch.split(momentum.view(-1), BLOCK))
    for value, gradient, *buffers in zip(*parts, strict=True):
        if group["maximize"]:
            gradient = -gradient
        if group["weight_decay"]:
            gradient = gradient.add(value, alpha=group["weight_decay"])
        for buffer in buffers:
            buffer.mul_(group["momentum"]).add_(gradient, alpha=1 - group["dampening"])
            gradient = gradient.add(buffer, alpha=group["momentum"]) if group["nesterov"] else buffer
        value.add_(gradient, alpha=-group["lr"])
