"""Data, metrics and models that several peers share while peers come and go.

Importing this package does not import torch; naming a class that needs it does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .elastic_sampler import ElasticSampler
from .mean_metric import mean_metric

if TYPE_CHECKING:
    from .elastic_data_parallel import ElasticDataParallel as ElasticDataParallel
    from .elastic_data_parallel import elastic_data_parallel as elastic_data_parallel
    from .elastic_loader import ElasticLoader as ElasticLoader
    from .island import Island as Island

__all__ = [
    "ElasticDataParallel",
    "ElasticLoader",
    "ElasticSampler",
    "Island",
    "elastic_data_parallel",
    "mean_metric",
]

# What needs torch, and the module that it is in.
_WITH_TORCH = {
    "ElasticDataParallel": "elastic_data_parallel",
    "ElasticLoader": "elastic_loader",
    "Island": "island",
    "elastic_data_parallel": "elastic_data_parallel",
}


def __getattr__(name: str) -> Any:
    """Imports what needs torch when it is named first."""
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f".{_WITH_TORCH[name]}", __name__), name)
    globals()[name] = found  # a module of that name must not hide it
    return found
