"""torch's reductions in the core's, and those that the core has not, from everybody's values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch

from ..errors import UsageError
from .member import OPS
from .torch_names import dist

_Kind = dist.ReduceOp.RedOpType
NAMES = {_Kind.SUM: "sum", _Kind.AVG: "avg", _Kind.PRODUCT: "prod", _Kind.MIN: "min", _Kind.MAX: "max"}
BITWISE: dict[Any, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    _Kind.BAND: torch.bitwise_and,
    _Kind.BOR: torch.bitwise_or,
    _Kind.BXOR: torch.bitwise_xor,
}
# What sums and products of truth values are: any and all.
_OF_BOOL = {"sum": "max", "prod": "min", "min": "min", "max": "max"}
_BITS_OF_BOOL = {_Kind.BAND: "min", _Kind.BOR: "max"}


@dataclass(frozen=True)
class Reduction:
    """`name`: the core's operation; None: gather everything and fold it here with `fold`.
    `factor`: inputs are multiplied by it first (PREMUL_SUM)."""

    name: str | None
    fold: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    factor: Any = None

    def folded(self, rows: torch.Tensor) -> torch.Tensor:
        """Of `rows` [peers, ...], which every peer has in the same order."""
        assert self.fold is not None
        return reduce(self.fold, rows.unbind(0))


_NUMBERS = {kind: OPS[name] for kind, name in NAMES.items()}


def number_of_op(op: Any) -> int | None:
    """The core's number of a reduction that it has for every dtype of its own; None: see reduction_of()."""
    return _NUMBERS.get(getattr(op, "op", op))


def reduction_of(op: Any, dtype: torch.dtype) -> Reduction:
    """Raises UsageError where this dtype has no such reduction."""
    kind = getattr(op, "op", op)
    if kind in BITWISE:
        return _bitwise(kind, dtype)
    if kind == _Kind.PREMUL_SUM:
        return Reduction("sum", factor=op.__getstate__()[1])
    name = NAMES.get(kind)
    if name is None:
        raise UsageError(f"{op!r} is no reduction that pccl knows: pass one of dist.ReduceOp")
    if dtype == torch.bool:
        if name not in _OF_BOOL:
            raise UsageError("an average of bool tensors has no meaning: convert them to float first")
        return Reduction(_OF_BOOL[name])
    if dtype.is_complex and name not in ("sum", "avg"):
        raise UsageError(f"{name} of complex tensors: they can be summed and averaged only")
    return Reduction(name)


def _bitwise(kind: Any, dtype: torch.dtype) -> Reduction:
    if dtype == torch.bool:
        return Reduction(_BITS_OF_BOOL.get(kind), fold=BITWISE[kind])
    if dtype.is_floating_point or dtype.is_complex:
        raise UsageError(f"{kind.name} of {dtype}: bitwise reductions take integers and bool")
    return Reduction(None, fold=BITWISE[kind])
