"""Nesterov's momentum for updates that come late (arXiv 2401.09135, algorithm 3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


class DelayedNesterov(torch.optim.Optimizer):
    """b += g and theta -= lr g / every in each step; in each `every`-th one also m = momentum m + b / every,
    theta -= lr momentum m, b = 0. Between two of these it is SGD, so that stale gradients do not build up in
    the momentum.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        lr: float = 0.7,
        momentum: float = 0.9,
        every: int = 2,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "every": every})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Of all parameters that have a gradient; `closure` is not called."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group["lr"], group["momentum"], group["every"])

    def _step(self, parameter: torch.Tensor, lr: float, momentum: float, every: int) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if not state:
            state["step"] = torch.zeros((), dtype=torch.int64)
            state["gradient_sum"] = torch.zeros_like(parameter)
            state["momentum_buffer"] = torch.zeros_like(parameter)
        state["step"] += 1
        state["gradient_sum"].add_(gradient)
        parameter.sub_(gradient, alpha=lr / every)
        if int(state["step"]) % every == 0:
            state["momentum_buffer"].mul_(momentum).add_(state["gradient_sum"], alpha=1 / every)
            parameter.sub_(state["momentum_buffer"], alpha=lr * momentum)
            state["gradient_sum"].zero_()
