"""How much each neighbour counts: gradient norms, and what becomes of those that cannot be weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from ..errors import UsageError


@torch.no_grad()
def squared_gradient_norm(stage: torch.nn.Module | Iterable[torch.nn.Parameter]) -> float:
    """The sum of the squares of all gradients of a stage, summed in float64: its weight in an average.

    Take it at each step after backward and before clipping (clipping to one norm makes all stages equal), and
    keep the last one; it is all that CheckFree stores while nothing fails. A parameter without a gradient
    counts as 0; one that is listed twice counts once. NaN or infinite where a gradient is.
    """
    parameters = stage.parameters() if isinstance(stage, torch.nn.Module) else stage
    total = 0.0
    for parameter in {id(p): p for p in parameters}.values():
        if parameter.grad is not None:
            total += float(torch.linalg.vector_norm(parameter.grad, dtype=torch.float64)) ** 2
    return total


def share_of_above(below: object, above: object, names: tuple[str, str]) -> float:
    """omega_above / (omega_below + omega_above), in float64: 0 to 1. 0.5 where both are 0."""
    low, high = _weight(below, names[0]), _weight(above, names[1])
    largest = max(low, high)
    if largest == 0:
        return 0.5
    low, high = low / largest, high / largest  # sums of numbers near 1e308 or 1e-320 would not do
    return high / (low + high)


def number_of(value: object) -> float:
    """As a float; NaN where it is no number, or too large for one."""
    try:
        return math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _weight(value: object, name: str) -> float:
    number = number_of(value)
    if not (math.isfinite(number) and number >= 0):
        raise UsageError(
            f"the weight of {name} is {value!r}: it is a squared gradient norm, finite and at least 0. "
            "Pass the one of the step before, or equal weights for the plain mean"
        )
    return number
