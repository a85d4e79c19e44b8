"""Data, metrics and models that several peers share while peers come and go.

Importing this package does not import torch; naming a class that needs it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .elastic_sampler import ElasticSampler
from .mean_metric import mean_metric

if TYPE_CHECKING:
    from .elastic_loader import ElasticLoader as ElasticLoader
    from .island import Island as Island

__all__ = ["ElasticLoader", "ElasticSampler", "Island", "mean_metric"]


def __getattr__(name: str) -> Any:
    """Imports what needs torch when it is named first."""
    if name == "ElasticLoader":
        from .elastic_loader import ElasticLoader

        return ElasticLoader
    if name == "Island":
        from .island import Island

        return Island
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
