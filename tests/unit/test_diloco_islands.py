"""The family on an island of several ranks: what they find out of their shards or clocks alone, they tell."""

from __future__ import annotations

import math
from typing import Any

import torch

from pccl_py.optim import rules
from pccl_py.optim.islands import Ranks
from pccl_py.parallel.copies import copies


class FakeIsland:
    """Of two ranks, of which this is the first."""

    size = 2

    def __init__(self, others: list[list[float]]) -> None:
        self.others = others

    def told(self, values: list[float]) -> list[list[float]]:
        return [values, self.others.pop(0)]

    def local_shards(self) -> None:
        raise AssertionError("not called")


def ranks(*others: list[float]) -> Ranks:
    island: Any = FakeIsland(list(others))
    return Ranks(island)


def test_one_rank_with_nan_is_all_ranks() -> None:
    assert ranks([1]).all(True) and not ranks([1]).all(False) and not ranks([0]).all(True)


def test_the_clock_of_the_first_rank_decides() -> None:
    assert ranks([9.0]).first(2.5) == 2.5 and ranks([1.0]).first(False) == 0


def test_norms_are_of_the_whole_tensors() -> None:
    """Of shards, that is; where every rank has a copy, the sum counts it once."""
    flat = torch.nn.Parameter(torch.zeros(3))
    flat._fsdp_flattened = True  # type: ignore[attr-defined]
    plain = torch.nn.Parameter(torch.zeros(3))
    assert copies(flat, 2) == 1 and copies(plain, 2) == 2
    assert ranks([16.0, 9 / 2]).sums([9.0, 9.0], [flat, plain]) == [25.0, 9.0]
    alone: Any = object()
    assert Ranks(alone).sums([4.0], [plain]) == [4.0]


def test_directions_and_means_of_shards() -> None:
    """Two ranks with halves find what one with the whole does."""
    whole = torch.arange(1.0, 9.0)
    half, other = whole[:4].clone(), whole[4:].clone()
    square = float(other.square().sum())
    norms = rules.directions([half], [False], lambda own: [own[0] + square])
    assert norms == [math.sqrt(204.0)]
    torch.testing.assert_close(half, whole[:4] / math.sqrt(204.0))
