"""The fence in front of torch optimizers' steps. Imports torch."""

from __future__ import annotations

import weakref
from typing import Any

import torch

from .fence import before_write

_hooked: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()


def _before_step(optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    before_write(owner=optimizer)


def hook(optimizer: torch.optim.Optimizer) -> None:
    """From now on its step() waits at the fence; once is enough, for as long as the optimizer lives."""
    if optimizer not in _hooked:
        optimizer.register_step_pre_hook(_before_step)
        _hooked.add(optimizer)
