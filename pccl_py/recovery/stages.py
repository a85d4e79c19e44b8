"""What a stage is to this package: named tensors of a module or of its state dict, checked before any use."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import UsageError
from ..tensors import check_torch, describe

Stage = torch.nn.Module | Mapping[str, Tensor]


def tensors_of(stage: Stage | None, name: str) -> dict[str, Tensor]:
    """Parameters and buffers by name, detached and not copied: they share the stage's memory."""
    if isinstance(stage, torch.nn.Module):
        stage = stage.state_dict()
    if not isinstance(stage, Mapping):
        raise UsageError(f"{name} is a {type(stage).__qualname__}: pass its module or its state dict")
    entries: Mapping[str, object] = stage
    for key, value in entries.items():
        if not isinstance(value, Tensor):
            kind = type(value).__qualname__
            raise UsageError(f"{name}: {key!r} is a {kind}, not a torch tensor: leave it out")
        check_torch(value, f"{name}: {key!r}")
    return {key: value.detach() for key, value in stage.items()}


def lost_index(lost: object, count: int) -> int:
    """A stage's place in the pipeline, from 0; negative ones do not count from the end."""
    try:
        index = -1 if isinstance(lost, bool) else operator.index(lost)  # type: ignore[arg-type]
    except TypeError:
        index = -1
    if not 0 <= index < count:
        raise UsageError(f"lost={lost!r}: it is a stage's place in the pipeline, 0 to {count - 1}")
    return index


def between(lost: object, count: int) -> int:
    """`lost`, checked to have a neighbour on both sides; says what to do where it has not."""
    index = lost_index(lost, count)
    if 0 < index < count - 1:
        return index
    end = "first" if index == 0 else "last"
    raise UsageError(
        f"stage {index} is the {end} of {count} and has no two neighbours: an average cannot rebuild it. "
        "Train with swapped_order() from the start and take neighbour_copy(), or load a checkpoint"
    )


def same_layout(stages: Sequence[dict[str, Tensor]], names: Sequence[str]) -> None:
    """Raises UsageError unless all have the same names, shapes and dtypes."""
    first = stages[0]
    for other, name in zip(stages[1:], names[1:], strict=True):
        if odd := sorted(first.keys() ^ other.keys()):
            raise UsageError(
                f"{names[0]} and {name} differ in {len(odd)} names, one is {odd[0]!r}: pass what they "
                "have in common, the blocks without embedding and head"
            )
        for key, tensor in first.items():
            if (tensor.shape, tensor.dtype) != (other[key].shape, other[key].dtype):
                raise UsageError(
                    f"{key!r} is {describe(tensor)} in {names[0]} and {describe(other[key])} in {name}: "
                    "only stages of equal layers can be averaged"
                )
