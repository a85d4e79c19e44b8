"""Stages from stages: the weighted mean of two neighbours, and the copy of one. Pure; no communication."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import UsageError
from .stages import Stage, between, lost_index, same_layout, tensors_of
from .weights import share_of_above


@torch.no_grad()
def neighbour_average(
    stages: Sequence[Stage | None], lost: int, weights: Sequence[float | None]
) -> dict[str, Tensor]:
    """A lost stage's state dict from those of its two neighbours: CheckFree.

        blocks.load_state_dict(neighbour_average([s0, None, s2, s3], 1, [w0, None, w2, w3]))

    With w the weights of stages i - 1 and i + 1, stage i becomes (w- * W- + w+ * W+) / (w- + w+). The paper
    takes w from the norm of the stage's last gradient: whoever has converged less counts more.

    stages    all stages of the pipeline in order: modules or state dicts. Only the two neighbours are read;
              the others may be None. Those two have equal names, shapes and dtypes: pass the blocks alone
              where a stage also holds an embedding or a head
    lost      place of the lost stage, 1 to len(stages) - 2
    weights   one per stage, in the same order; those of the neighbours are finite and at least 0, see
              squared_gradient_norm(). Where both are 0, as before the first step: the plain mean

    Returns new tensors, on the device of the stage below, of the neighbours' shapes and dtypes, that share no
    memory with anything (entries that are tied in a stage have equal values). Computed in float32 (float64
    and complex in their own) and rounded once to the dtype; elements that are equal in both neighbours, a
    mask's -inf too, are taken as they are. Integers and bools cannot be averaged: they come from the
    neighbour with the larger weight, the one below if equal.

    The optimizer's state is lost with the stage: begin with a new one, see raise_learning_rate().

    Raises UsageError for the first and the last stage, for neighbours that differ in names, shapes or dtypes,
    for weights that are no such numbers, and where a mean is NaN or infinite as a neighbour's values are.

    Source: arXiv 2506.15461v2, section 4.2 and algorithm 1, whose second weight in the numerator is a
    misprint of w+. The paper's own code weighs by the norm after clipping, not squared: pass what you like.
    """
    index = between(lost, len(stages))
    if len(weights) != len(stages):
        raise UsageError(f"{len(weights)} weights for {len(stages)} stages: pass one per stage, in order")
    names = (f"stage {index - 1}", f"stage {index + 1}")
    share = share_of_above(weights[index - 1], weights[index + 1], names)
    below, above = tensors_of(stages[index - 1], names[0]), tensors_of(stages[index + 1], names[1])
    same_layout([below, above], names)
    return {key: _mean(key, tensor, above[key], share) for key, tensor in below.items()}


@torch.no_grad()
def neighbour_copy(stages: Sequence[Stage | None], lost: int) -> dict[str, Tensor]:
    """The first or last stage's state dict as a copy of the stage beside it: CheckFree+.

    Only for pipelines that were trained in swapped_order(), where the two took each other's place in half of
    the microbatches; elsewhere a copy loses much of what was learned. Embedding and head are no part of it:
    let their peer give them to a neighbour now and then, send_stage(comm, embedding, to, weight=0.0).

    stages, lost: as for neighbour_average; in between two neighbours, take that. Returns copies on the
    neighbour's device. Raises UsageError. Source: arXiv 2506.15461v2, section 4.3.
    """
    index = lost_index(lost, len(stages))
    if len(stages) < 2 or 0 < index < len(stages) - 1:
        raise UsageError(f"stage {index} of {len(stages)} is no end of a pipeline: take neighbour_average()")
    beside = 1 if index == 0 else index - 1
    tensors = tensors_of(stages[beside], f"stage {beside}")
    return {key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()}


def _mean(key: str, below: Tensor, above: Tensor, share: float) -> Tensor:
    """below + share * (above - below), new and contiguous."""
    above = above.to(below.device)
    if not (below.is_floating_point() or below.is_complex()):
        return (above if share > 0.5 else below).clone(memory_format=torch.contiguous_format)
    wide = below.dtype if below.dtype in (torch.float64, torch.complex64, torch.complex128) else torch.float32
    low, high = below.to(wide), above.to(wide)
    mean = torch.where(low == high, low, torch.lerp(low, high, share))
    if not bool((torch.isfinite(mean) | (low == high)).all()):
        raise UsageError(
            f"{key!r}: the mean of the neighbours is NaN or infinite, as their values are: they are "
            "broken too, load a checkpoint"
        )
    return mean.to(below.dtype, memory_format=torch.contiguous_format, copy=True)
