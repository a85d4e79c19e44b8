"""What the peers do between two boundaries: all of them draw the same operations from the seed and the
number.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Op = Literal["sum", "avg", "prod", "min", "max"]
Algorithm = Literal["auto", "ring", "direct", "exchange"]
Scope = Literal["group", "run"]
Style = Literal["tagged", "numbered", "threads"]

FLOATS = ("float32", "float64", "float16")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


@dataclass(frozen=True)
class TensorPlan:
    """`shift`: bytes off alignment. `in_place`: the output is the input."""

    dtype: str
    count: int
    shift: int
    in_place: bool


@dataclass(frozen=True)
class OperationPlan:
    """One all-reduce. `slot`: its place in the window, and its tag where tags are named."""

    slot: int
    op: Op
    algorithm: Algorithm
    scope: Scope
    weighted: bool
    raise_on_loss: bool
    tensors: tuple[TensorPlan, ...]


@dataclass(frozen=True)
class WindowPlan:
    """`style`: tags are named (and posted in any order), numbered by the library, or used by two threads."""

    number: int
    style: Style
    barrier: bool
    operations: tuple[OperationPlan, ...]


@dataclass(frozen=True)
class Limits:
    """Bounds of a window: operations in flight, and elements of one tensor (drawn evenly by magnitude)."""

    in_flight: int = 6
    elements_min: int = 1
    elements_max: int = 1 << 18


def plan_window(seed: int, number: int, limits: Limits) -> WindowPlan:
    """The same on every peer."""
    draw = random.Random(f"{seed} window {number}")
    style: Style = draw.choice(("tagged", "tagged", "numbered", "threads"))
    count = draw.randint(1, limits.in_flight)
    operations = tuple(_plan_operation(draw, slot, limits) for slot in range(count))
    return WindowPlan(number, style, draw.random() < 0.1, operations)


def _plan_operation(draw: random.Random, slot: int, limits: Limits) -> OperationPlan:
    op: Op = draw.choice(("sum", "sum", "sum", "sum", "avg", "prod", "min", "max"))
    weighted = op == "avg" and draw.random() < 0.5
    dtype = "float32" if draw.random() < 0.6 else draw.choice(FLOATS if weighted else FLOATS + INTEGERS)
    several = draw.random() < 0.25
    mixed = several and draw.random() < 0.5
    tensors = []
    for _ in range(draw.randint(2, 4) if several else 1):
        kind = draw.choice(FLOATS if weighted else FLOATS + INTEGERS) if mixed else dtype
        tensors.append(_plan_tensor(draw, kind, limits))
    scope: Scope = "run" if draw.random() < 0.3 else "group"
    algorithm: Algorithm = draw.choice(("auto", "ring", "direct", "exchange", "two-level"))
    return OperationPlan(slot, op, algorithm, scope, weighted, draw.random() < 0.15, tuple(tensors))


def _plan_tensor(draw: random.Random, dtype: str, limits: Limits) -> TensorPlan:
    low, high = limits.elements_min, limits.elements_max
    count = round(low * (high / low) ** draw.random())
    if low == 1 and draw.random() < 0.06:
        count = 0
    shift = draw.randrange(1, 64) if draw.random() < 0.2 else 0
    return TensorPlan(dtype, count, shift, draw.random() < 0.5)
