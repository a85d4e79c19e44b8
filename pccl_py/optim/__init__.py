"""Optimizers that train far apart and rarely talk: DiLoCo, the first of its family.

Importing this package does not import torch; naming a class does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .diloco import DiLoCo as DiLoCo
    from .stats import Stats as Stats
    from .stats import Window as Window

_MODULES = {"DiLoCo": "diloco", "Stats": "stats", "Window": "stats"}

__all__ = ["DiLoCo", "Stats", "Window"]


def __getattr__(name: str) -> Any:
    """Imports what is named first, and torch with it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
