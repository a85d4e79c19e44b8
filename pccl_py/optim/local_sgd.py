"""Local SGD: the mean of the parameters every H steps (arXiv 1805.09767)."""

from __future__ import annotations

from typing import Unpack

import torch

from . import options
from .engine import Engine
from .options import Paced, settings
from .reduction import Comm


class LocalSGD(Engine):
    """Every peer takes `sync_every` steps of its inner optimizer from the same parameters, and then goes on
    from the mean of all peers' parameters: DiLoCo with SGD(lr=1) as outer optimizer. With sync_every=1 and
    SGD as inner optimizer it is data-parallel SGD. Arguments, use and churn are DiLoCo's."""

    def __init__(
        self,
        comm: Comm,
        model: torch.nn.Module,
        inner: torch.optim.Optimizer,
        *,
        sync_every: int,
        **common: Unpack[Paced],
    ) -> None:
        checked = settings("LocalSGD", options.averaging, sync_every=sync_every, **common)
        super().__init__(comm, model, inner, checked)
