"""The learning rate of a rebuilt stage, with schedulers that came before or come after."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler

from pccl_py import UsageError
from pccl_py.recovery import raise_learning_rate
from tests.conftest import ROOT


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD(
        [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": rate} for rate in (0.1, 0.02)], lr=1.0
    )


def halving(o: torch.optim.Optimizer) -> LRScheduler:
    return LambdaLR(o, lambda step: 0.5**step)


def cosine(o: torch.optim.Optimizer) -> LRScheduler:
    return CosineAnnealingLR(o, T_max=10)


def rates(o: torch.optim.Optimizer, scheduler: LRScheduler, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append([group["lr"] for group in o.param_groups])
        o.step()
        scheduler.step()
    return [rate for step in found for rate in step]


@pytest.mark.parametrize("schedule", [halving, cosine])
@pytest.mark.parametrize("order", ["before", "after"])
def test_every_rate_of_the_schedule_is_larger(schedule: Any, order: str) -> None:
    expected = rates(plain := optimizer(), schedule(plain), 6)
    o = optimizer()
    if order == "before":
        scheduler = schedule(o)
        raise_learning_rate(o, scheduler=scheduler)
    else:
        raise_learning_rate(o)
        scheduler = schedule(o)
    assert rates(o, scheduler, 6) == pytest.approx([1.1 * rate for rate in expected])


def test_rates_that_are_tensors_change_in_place() -> None:
    rate = torch.tensor(0.5)
    o = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], lr=rate, capturable=False, foreach=False)
    raise_learning_rate(o, 2)
    assert o.param_groups[0]["lr"] is rate and float(rate) == 1.0


@pytest.mark.parametrize("factor", [0, -1.0, math.nan, math.inf, "1.1"])
def test_factors_that_are_none(factor: Any) -> None:
    o = optimizer()
    with pytest.raises(UsageError, match="factor="):
        raise_learning_rate(o, factor)
    assert [group["lr"] for group in o.param_groups] == [0.1, 0.02]


def test_the_package_imports_no_torch_until_it_is_needed() -> None:
    source = "import sys, pccl_py as p; dir(p.recovery); print('torch' in sys.modules)"
    source += (
        "; [getattr(p.recovery, n) for n in p.recovery.__all__]; print(callable(p.recovery.swapped_order))"
    )
    source += "; from pccl_py.recovery import swapped_order; print(swapped_order(4, 0))"
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:3] == ["False", "True", "[0, 1, 2, 3]"]
