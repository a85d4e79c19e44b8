"""What a committed average tells, before it is applied: who was left out, and the record of its window."""

from __future__ import annotations

import logging
import time

import torch

from ..error_feedback import ErrorFeedback
from ..errors import NonFiniteError
from .outer_state import OuterState
from .reduction import SLOTS, Landed, Own
from .stats import Window

logger = logging.getLogger("pccl_py.optim")


def left_out(landed: Landed, average: torch.Tensor, non_finite: str) -> tuple[int, ...]:
    """Ids of the peers whose deltas were left out. Where their zeros were averaged, they are taken out of the
    mean. NonFiniteError on all peers alike, if it is to be raised."""
    if not landed.bad:
        return landed.info.skipped
    ids = tuple(peer for peer in landed.info.contributors if peer % SLOTS in landed.bad)
    names = ", ".join(str(peer) for peer in ids)
    text = f"the delta of peer {names} holds NaN or infinity"
    if non_finite == "raise":
        raise NonFiniteError(f"{text}: drop_window() there, then sync() on all peers; or non_finite='skip'")
    logger.warning("%s, and is left out of the average", text)
    left = landed.weight - landed.bad_weight
    if left > 0:
        average.mul_(landed.weight / left)
    return ids


def window_of(
    landed: Landed,
    outer: OuterState,
    own: Own,
    *,
    skipped: tuple[int, ...],
    waited: float,
    delta_norm: float,
    feedback: ErrorFeedback | None,
) -> Window:
    """Before the outer state knows of it."""
    info, weight, number = landed.info, landed.weight - landed.bad_weight, outer.fragment.number
    return Window(
        number=outer.windows + 1,
        outer_step=outer.outer_step + (weight > 0),
        contributors=tuple(peer for peer in info.contributors if peer not in skipped),
        weight=weight,
        waiting=info.waiting,
        steps=own.steps,
        delta_norm=delta_norm,
        average_norm=norm(outer.delta[: outer.fragment.size]),
        bytes_sent=landed.bytes_sent,
        bytes_received=landed.bytes_received,
        attempts=info.attempts,
        wait_s=waited,
        committed_at=time.monotonic(),
        fragment=number,
        reduction_s=info.seconds,
        skipped=skipped,
        quantization_error=None if feedback is None else feedback[str(number)].length(),
    )


def norm(flat: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(flat))
