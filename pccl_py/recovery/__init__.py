"""A lost pipeline stage is rebuilt from its neighbours, without a checkpoint: CheckFree (arXiv 2506.15461).

Where one of a pipeline's stages lives on one peer alone and that peer dies, its weights are gone. Training
goes on from a mean of the two neighbours instead; nothing is copied while all are alive. It is lossy: where
another replica, snapshot or checkpoint has the stage, take that.

It helps as far as neighbours resemble each other: in large pre-norm transformers, by the paper; in small ones
where the stages began as copies of one (layer stacking). In small ones whose stages began at random apart, a
mean was no better than a fresh stage.

Importing this package does not import torch; naming a function does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .averaging import neighbour_average as neighbour_average
    from .averaging import neighbour_copy as neighbour_copy
    from .learning_rate import raise_learning_rate as raise_learning_rate
    from .swapped_order import swapped_order as swapped_order
    from .transfer import receive_stage as receive_stage
    from .transfer import recover_stage as recover_stage
    from .transfer import send_stage as send_stage
    from .weights import squared_gradient_norm as squared_gradient_norm

_MODULES = {
    "neighbour_average": "averaging",
    "neighbour_copy": "averaging",
    "raise_learning_rate": "learning_rate",
    "receive_stage": "transfer",
    "recover_stage": "transfer",
    "send_stage": "transfer",
    "squared_gradient_norm": "weights",
    "swapped_order": "swapped_order",
}

__all__ = [
    "neighbour_average",
    "neighbour_copy",
    "raise_learning_rate",
    "receive_stage",
    "recover_stage",
    "send_stage",
    "squared_gradient_norm",
    "swapped_order",
]


def __getattr__(name: str) -> Any:
    """Imports what is named first, and torch with it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = found  # swapped_order is also the name of a module, which its import leaves here
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
