"""DiLoCo with averages that are applied a window late, and so travel during a whole one."""

from __future__ import annotations

from functools import partial
from typing import Literal, Unpack

import torch

from ..errors import UsageError
from . import options
from .delayed_nesterov import DelayedNesterov
from .engine import Engine
from .options import Common, OuterFactory, one_of, settings
from .reduction import Comm

Staleness = Literal["none", "gap", "eager", "delayed_nesterov"]

_DEFAULTS: dict[str, OuterFactory] = {
    "none": options.plain_sgd,
    "gap": partial(torch.optim.SGD, lr=0.5, momentum=0.9, nesterov=True),
    "eager": options.plain_sgd,
    "delayed_nesterov": partial(DelayedNesterov, lr=0.7, momentum=0.9, every=2),
}


class AsyncDiLoCo(Engine):
    """With g_t the mean of the differences of window t, theta_{t+1} = theta_t - Outer(g_{t-1}), and every
    window starts from theta_t: the reduction of a window overlaps the whole next one. The first window's
    progress is taken back, and comes with the second one; finalize() applies the last average.

    staleness        "none". "gap": g / (1 + gap / |g|) in place of g, with the distance from where g was
                     measured to where it is applied (CO2, arXiv 2401.16265). "eager": each peer starts ahead
                     of theta by its own part of the average that is under way, lr w_i / sum(w) times its
                     difference (arXiv 2502.12996, whose recursion it is where the outer optimizer is SGD
                     without momentum; the shared state stays the same on all peers here).
                     "delayed_nesterov": DelayedNesterov is the default (arXiv 2401.09135)
    lookahead        a window starts where the outer step will lead if the average that is under way is what
                     this peer's own difference says; the mean of all starts then is where the average will be
                     applied, up to clipping and churn, and the gap is next to nothing. So the first window's
                     progress is not taken back, and momentum bears the delay. None: with "gap". Without it,
                     the gap is |theta_t - theta_{t-1}|
    outer_optimizer  None: SGD(lr=0.7), as momentum 0.9 with a delay diverges; with "gap" SGD(lr=0.5,
                     momentum=0.9, nesterov=True), with "delayed_nesterov" DelayedNesterov(lr=0.7,
                     momentum=0.9, every=2)

    Costs a second buffer for the average under way ("gap", and a clip: a copy of the parameters in the outer
    step; "eager": one more; lookahead: that, and during a step a copy of the optimizer's buffers).
    StreamingDiLoCo loses less where its delay suffices. Arguments, use and churn are DiLoCo's; a joiner
    receives an average that waits, too. On an Island the ranks agree on an average where it is applied.
    """

    def __init__(
        self,
        comm: Comm,
        model: torch.nn.Module,
        inner: torch.optim.Optimizer,
        *,
        sync_every: int,
        staleness: Staleness = "none",
        lookahead: bool | None = None,
        outer_optimizer: OuterFactory | None = None,
        **common: Unpack[Common],
    ) -> None:
        one_of(staleness, "staleness", tuple(_DEFAULTS))
        outer = _DEFAULTS[staleness] if outer_optimizer is None else outer_optimizer
        looks = staleness == "gap" if lookahead is None else bool(lookahead)
        if looks and staleness == "eager":
            raise UsageError("staleness='eager' starts ahead by its own part already: without lookahead")
        checked = settings(
            "AsyncDiLoCo",
            outer,
            sync_every=sync_every,
            pipelined=True,
            staleness=staleness,
            lookahead=looks,
            **common,
        )
        super().__init__(comm, model, inner, checked)
