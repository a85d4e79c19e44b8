"""The arguments that the whole family shares: checked here, and refused where their part is not built yet."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch

from ..errors import NotBuilt, UsageError

InnerStateOnJoin = Literal["keep", "zero", "copy"]
OuterFactory = Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]

# Argument: (the value that is built, what any other waits for, what to do until then).
_LATER: dict[str, tuple[Any, str, str]] = {
    "num_fragments": (1, "StreamingDiLoCo", "pass 1"),
    "fragment_sync_delay": (0, "StreamingDiLoCo", "pass 0"),
    "fragment_update_alpha": (0.0, "StreamingDiLoCo", "pass 0.0"),
    "quantization": (None, "quantized windows", "pass None"),
    "error_feedback": (False, "quantized windows", "pass False"),
    "staleness": ("none", "AsyncDiLoCo", "pass 'none'"),
    "outer_momentum_clip": (None, "AsyncDiLoCo", "pass None"),
    "weighting": ("uniform", "weights by tokens", "pass 'uniform'"),
    "merge": ("mean", "radial-directional averaging", "pass 'mean'"),
    "local_steps": ("fixed", "steps by measured speed", "pass 'fixed'"),
    "backup_device": (None, "outer state on a device", "pass None, which keeps it on the host"),
    "bucket_cap_mb": (None, "reductions in buckets", "pass None"),
    "min_peers": (1, "a quorum with a grace window", "pass 1, and min_islands to the Communicator"),
    "grace_ms": (0, "a quorum with a grace window", "pass 0"),
}


def check_built(arguments: dict[str, Any]) -> None:
    """Raises NotBuilt for an argument of a part that waits; `arguments` has all names of the table."""
    for name, (built, part, advice) in _LATER.items():
        value = arguments[name]
        if value != built or isinstance(value, bool) != isinstance(built, bool):
            raise NotBuilt(f"{name}={value!r} waits for {part}; {advice}")


def inner_state_on_join(value: str) -> InnerStateOnJoin:
    if value == "copy":
        raise NotBuilt("inner_state_on_join='copy' waits for copies of private state; pass 'keep' or 'zero'")
    if value not in ("keep", "zero"):
        raise UsageError(f"inner_state_on_join={value!r}: it is 'keep', 'zero' or 'copy'")
    return "zero" if value == "zero" else "keep"


def count(value: object, name: str, low: int) -> int:
    """A whole number that is at least `low`."""
    try:
        number = low - 1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = low - 1
    if number < low:
        raise UsageError(f"{name}={value!r}: it is a whole number, at least {low}")
    return number


def nesterov(parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The outer optimizer of the DiLoCo paper (arXiv 2311.08105)."""
    return torch.optim.SGD(parameters, lr=0.7, momentum=0.9, nesterov=True)
