"""The family on an island of several ranks: what they would decide differently is told, or refused."""

from __future__ import annotations

from typing import Any

import pytest

import pccl_py as pccl
from pccl_py.optim import AsyncDiLoCo, DiLoCo
from pccl_py.optim.islands import Ranks
from pccl_py.optim.options import averaging, settings
from tests.toy import H, net, sgd


class FakeIsland:
    """Of two ranks."""

    size = 2

    def __init__(self, others: list[int]) -> None:
        self._others = others

    def tell(self, number: int) -> list[int]:
        return [number, *self._others]

    def local_shards(self) -> None:
        raise AssertionError("not called")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (DiLoCo, {"merge": "rda"}),
        (DiLoCo, {"outer_momentum_clip": 1.0}),
        (DiLoCo, {"local_steps": "dynamic"}),
        (DiLoCo, {"min_peers": 2}),
        (AsyncDiLoCo, {"staleness": "gap"}),
    ],
)
def test_what_shards_would_compute_differently_is_not_built(kind: Any, options: dict[str, Any]) -> None:
    model = net()
    with pytest.raises(pccl.NotBuilt, match="waits for norms and clocks"):
        kind(FakeIsland([]), model, sgd(model), sync_every=H, **options)


def test_one_rank_with_nan_is_all_ranks() -> None:
    checked = settings("LocalSGD", averaging, sync_every=H)
    fine: Any = FakeIsland([1])
    bad: Any = FakeIsland([0])
    assert Ranks(fine, checked).all(True) and not Ranks(fine, checked).all(False)
    assert not Ranks(bad, checked).all(True)
    streaming = settings("AsyncDiLoCo", averaging, sync_every=H, pipelined=True)
    assert streaming.how.overlaps and not Ranks(fine, streaming).how(streaming.how).overlaps
