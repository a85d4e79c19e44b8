"""A rebuilt stage begins with a somewhat larger learning rate."""

from __future__ import annotations

import math

import torch

from ..errors import UsageError


def raise_learning_rate(
    optimizer: torch.optim.Optimizer,
    factor: float = 1.1,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> None:
    """Multiplies the learning rates of a rebuilt stage's new optimizer, so that it leaves the mean sooner.

    optimizer   of this stage alone, all groups. Its state is best new: the old one is lost, and a neighbour's
                moments belong to other weights
    factor      1.1 in the paper; finite and above 0. Once per recovery: twice multiplies twice
    scheduler   one that was built already, whose base rates follow. One that is built afterwards begins with
                the larger rate by itself. Of a SequentialLR or ChainedScheduler, build it afterwards

    Raises UsageError for another factor. Source: arXiv 2506.15461v2, section 4.2 and algorithm 1, line 3.
    """
    if not (isinstance(factor, int | float) and math.isfinite(factor) and factor > 0):
        raise UsageError(f"factor={factor!r}: it is a number above 0; the paper takes 1.1")
    for group in optimizer.param_groups:
        for key in ("lr", "initial_lr"):
            if isinstance(group.get(key), torch.Tensor):
                group[key].mul_(factor)  # a captured step reads it where it is
            elif key in group:
                group[key] = group[key] * factor
    if scheduler is not None:
        scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
