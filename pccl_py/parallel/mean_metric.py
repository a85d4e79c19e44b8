"""The mean of a number over whoever is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np


class Reduces(Protocol):
    """What of a Communicator is needed here."""

    @property
    def all_reduce(self) -> Callable[..., Any]: ...


def mean_metric(comm: Reduces, value: float, weight: float = 1.0, *, tag: int | None = None) -> float:
    """sum(weight * value) / sum(weight) over the peers of the group that contribute: float64, the same bits
    on all of them. Weights are samples or tokens, so the mean does not jump when a peer leaves.

    0.0 where all weights are 0. A value of NaN or infinity makes the mean one, unless its weight is 0. Raises
    what all_reduce raises.
    """
    numbers = np.array([value if weight > 0 else 0.0], np.float64)
    comm.all_reduce(numbers, "avg", weight=float(weight), tag=tag)
    return float(numbers[0])
