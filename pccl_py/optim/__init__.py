"""Optimizers that train far apart and rarely talk: the DiLoCo family.

Importing this package does not import torch; naming a class does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .async_diloco import AsyncDiLoCo as AsyncDiLoCo
    from .delayed_nesterov import DelayedNesterov as DelayedNesterov
    from .diloco import DiLoCo as DiLoCo
    from .local_sgd import LocalSGD as LocalSGD
    from .stats import Stats as Stats
    from .stats import Window as Window
    from .streaming_diloco import StreamingDiLoCo as StreamingDiLoCo
    from .weights import Progress as Progress

_MODULES = {
    "AsyncDiLoCo": "async_diloco",
    "DelayedNesterov": "delayed_nesterov",
    "DiLoCo": "diloco",
    "LocalSGD": "local_sgd",
    "Progress": "weights",
    "Stats": "stats",
    "StreamingDiLoCo": "streaming_diloco",
    "Window": "stats",
}

__all__ = [
    "AsyncDiLoCo",
    "DelayedNesterov",
    "DiLoCo",
    "LocalSGD",
    "Progress",
    "Stats",
    "StreamingDiLoCo",
    "Window",
]


def __getattr__(name: str) -> Any:
    """Imports what is named first, and torch with it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
