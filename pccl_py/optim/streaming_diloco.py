"""Streaming DiLoCo: fragments travel by turns, while the peers train (arXiv 2501.18512)."""

from __future__ import annotations

from functools import partial
from typing import Unpack

import torch

from .engine import Engine
from .options import Common, OuterFactory, settings
from .reduction import Comm

_outer = partial(torch.optim.SGD, lr=0.4, momentum=0.9, nesterov=True)


class StreamingDiLoCo(Engine):
    """DiLoCo by fragments: each of `num_fragments` parts of the parameters, of about equal size, is reduced
    every `sync_every` steps, at times spread over them, so that links carry the same traffic evenly. With
    `fragment_sync_delay` they do so while the peers go on training: the recommended way to overlap.

    num_fragments          F; fragment p leaves at steps that are (p + 1) sync_every / F modulo sync_every
    fragment_sync_delay    tau: inner steps between its departure and the outer step on it, less than
                           sync_every / F, so that one is under way at any time; 0: at once
    fragment_update_alpha  the model's values are mixed from its own (alpha) and the outer ones (1 - alpha)
                           then. None: 0.5 with a delay, 0 without
    outer_optimizer        None: SGD(lr=0.4, momentum=0.9, nesterov=True)

    With one fragment, no delay and alpha 0 it is DiLoCo. `windows` counts the outer steps of fragments. A
    joiner takes part in a fragment's average once it has trained it for a whole window. Without `with`, call
    sync() when a fragment leaves and again when it is applied. On an Island averages travel while all ranks
    train, too; they agree on each where it is applied. All else is DiLoCo's.
    """

    def __init__(
        self,
        comm: Comm,
        model: torch.nn.Module,
        inner: torch.optim.Optimizer,
        *,
        sync_every: int,
        num_fragments: int = 4,
        fragment_sync_delay: int = 0,
        fragment_update_alpha: float | None = None,
        outer_optimizer: OuterFactory | None = None,
        **common: Unpack[Common],
    ) -> None:
        alpha = fragment_update_alpha
        checked = settings(
            "StreamingDiLoCo",
            _outer if outer_optimizer is None else outer_optimizer,
            sync_every=sync_every,
            num_fragments=num_fragments,
            delay=fragment_sync_delay,
            alpha=(0.5 if fragment_sync_delay else 0.0) if alpha is None else alpha,
            **common,
        )
        super().__init__(comm, model, inner, checked)
