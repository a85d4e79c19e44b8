"""The mean of two neighbours: its values in every dtype, its weights, and what cannot be averaged."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pccl_py import UsageError
from pccl_py.recovery import neighbour_average, neighbour_copy, squared_gradient_norm, swapped_order
from pccl_py.recovery.weights import share_of_above

FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def average(below: Any, above: Any, low: Any = 1.0, high: Any = 1.0) -> dict[str, Tensor]:
    return neighbour_average([below, None, above], 1, [low, None, high])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "weights", [(1.0, 1.0), (3.0, 1.0), (0.0, 2.0), (2.0, 0.0), (1e-300, 3e-300), (1e308, 1e308)]
)
def test_values_and_one_rounding(dtype: torch.dtype, weights: tuple[float, float]) -> None:
    generator = torch.Generator().manual_seed(1)
    below, above = (torch.randn(7, 33, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    got = average({"w": below}, {"w": above}, *weights)["w"]
    low, high = (weight / max(weights) for weight in weights)
    exact = (low * below.double() + high * above.double()) / (low + high)
    assert got.dtype is dtype and got.shape == (7, 33)
    if dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(got, exact.float().to(dtype)) or (got - exact.to(dtype)).abs().max() <= 2**-8
    bound = torch.finfo(dtype).eps * (below.abs() + above.abs()).double()
    assert bool(((got.double() - exact).abs() <= bound).all())


def test_by_hand_and_the_right_neighbours() -> None:
    """Weights 3 and 1 of places 1 and 3: (3 * 2 + 1 * 10) / 4. The others are not even looked at."""
    stages = [
        None,
        {"w": torch.tensor([2.0])},
        {"w": torch.tensor([math.nan])},
        {"w": torch.tensor([10.0])},
        None,
    ]
    got = neighbour_average(stages, 2, [None, 3.0, math.nan, 1.0, None])
    assert got["w"].tolist() == [4.0]


def test_equal_elements_keep_their_bits() -> None:
    same = torch.tensor([0.1, -math.inf, math.inf, 1e-45, 3e38, -0.0])
    for weights in [(1, 3), (0.3, 0.7), (0, 0)]:
        assert torch.equal(average({"w": same}, {"w": same.clone()}, *weights)["w"], same)


def test_no_weights_at_all_give_the_plain_mean() -> None:
    got = average({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, -2.0])}, 0.0, 0)
    assert got["w"].tolist() == [2.0, 0.0]


@pytest.mark.parametrize(
    "wrong", [math.nan, math.inf, -1.0, None, "much", True, 10**400], ids=lambda value: str(value)[:8]
)
@pytest.mark.parametrize("side", ["below", "above"])
def test_weights_that_are_none(wrong: Any, side: str) -> None:
    stage = {"w": torch.ones(2)}
    weights = (wrong, 1.0) if side == "below" else (1.0, wrong)
    with pytest.raises(UsageError, match=f"weight of stage {0 if side == 'below' else 2} is .*equal weights"):
        average(stage, stage, *weights)


def test_share_is_exact_where_sums_would_overflow() -> None:
    names = ("a", "b")
    assert share_of_above(1.7e308, 1.7e308, names) == 0.5
    assert share_of_above(5e-324, 5e-324, names) == 0.5
    assert share_of_above(1.0, np.float32(3.0), names) == 0.75


@pytest.mark.parametrize(("lost", "end"), [(0, "first"), (3, "last")])
def test_ends_are_refused_with_their_alternative(lost: int, end: str) -> None:
    with pytest.raises(UsageError, match=f"stage {lost} is the {end} of 4 .*neighbour_copy"):
        neighbour_average([None] * 4, lost, [None] * 4)


@pytest.mark.parametrize("lost", [-1, 4, 1.0, None, True])
def test_places_that_are_none(lost: Any) -> None:
    with pytest.raises(UsageError, match="lost=.*0 to 3"):
        neighbour_average([None] * 4, lost, [1.0] * 4)
    with pytest.raises(UsageError, match="lost=.*0 to 3"):
        neighbour_copy([None] * 4, lost)


def test_stages_that_do_not_fit() -> None:
    stage: dict[str, Any] = {"w": torch.ones(2, 3), "b": torch.ones(2)}
    for other, match in [
        (
            {"w": torch.ones(3, 2), "b": torch.ones(2)},
            r"'w' is float32\[2, 3\] in stage 0 and float32\[3, 2\]",
        ),
        ({"w": torch.ones(2, 3).half(), "b": torch.ones(2)}, r"float16\[2, 3\] in stage 2"),
        ({"w": torch.ones(2, 3)}, "differ in 1 names, one is 'b'.*embedding and head"),
        ({"w": torch.ones(2, 3), "b": 3}, "'b' is a int, not a torch tensor"),
        ({"w": torch.ones(2, 3), "b": torch.ones(2, device="meta")}, "meta device"),
        ({"w": torch.ones(2, 3), "b": torch.ones(2).to_sparse()}, "layout"),
        (None, "stage 2 is a NoneType: pass its module"),
    ]:
        with pytest.raises(UsageError, match=match):
            average(stage, other)
    with pytest.raises(UsageError, match="2 weights for 3 stages"):
        neighbour_average([stage, None, stage], 1, [1.0, 1.0])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_broken_neighbours_are_not_averaged(value: float) -> None:
    with pytest.raises(UsageError, match="'w': the mean of the neighbours is NaN or infinite"):
        average({"w": torch.tensor([1.0, value])}, {"w": torch.tensor([1.0, 2.0])})


def test_integers_come_from_whoever_counts_more() -> None:
    below, above = (
        {"n": torch.tensor(3), "m": torch.tensor([True])},
        {"n": torch.tensor(9), "m": torch.tensor([False])},
    )
    assert average(below, above, 1, 1)["n"] == 3
    assert average(below, above, 1, 2) == {"n": 9, "m": False}


def test_nothing_is_shared_or_changed() -> None:
    """Modules in, new memory out: also where both neighbours are one module, or tied inside."""
    stage = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    stage[1].weight = stage[0].weight
    before = {key: tensor.clone() for key, tensor in stage.state_dict().items()}
    got = average(stage, stage, 0.0, 1.0)
    assert all(torch.equal(got[key], value) for key, value in before.items())
    own = {tensor.untyped_storage().data_ptr() for tensor in stage.state_dict().values()}
    new = [tensor.untyped_storage().data_ptr() for tensor in got.values()]
    assert not own.intersection(new) and len(set(new)) == len(new)
    assert not any(tensor.requires_grad for tensor in got.values())
    for tensor in got.values():
        tensor.zero_()
    assert all(torch.equal(tensor, before[key]) for key, tensor in stage.state_dict().items())
    stage.load_state_dict(average(stage, stage))
    assert stage[1].weight is stage[0].weight


def test_views_of_other_tensors() -> None:
    """Transposed and expanded entries: the result is contiguous, with the values of what was meant."""
    below, above = torch.arange(6.0).view(2, 3).t(), torch.tensor([2.0, 4.0]).expand(3, 2)
    got = average({"w": below}, {"w": above})["w"]
    assert got.is_contiguous() and torch.equal(got, (below + above) / 2)
    assert average({"w": torch.ones(0, 4)}, {"w": torch.ones(0, 4)})["w"].shape == (0, 4)


# ---- CheckFree+ --------------------------------------------------------------------------------------------


def test_copies_of_the_stages_beside_the_ends() -> None:
    stages = [None, {"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}, None]
    for lost, value, source in [(0, 1.0, 1), (3, 2.0, 2)]:
        got = neighbour_copy(stages, lost)["w"]
        assert got.tolist() == [value]
        got.zero_()
        assert stages[source] == {"w": value}
    with pytest.raises(UsageError, match="no end of a pipeline"):
        neighbour_copy(stages, 1)
    with pytest.raises(UsageError, match="no end"):
        neighbour_copy([None], 0)


def test_order_of_microbatches() -> None:
    assert [swapped_order(6, n) for n in range(3)] == [
        [0, 1, 2, 3, 4, 5],
        [1, 0, 2, 3, 5, 4],
        [0, 1, 2, 3, 4, 5],
    ]
    assert swapped_order(4, 7) == [1, 0, 3, 2]
    with pytest.raises(UsageError, match="at least 4"):
        swapped_order(3, 1)


# ---- weights -----------------------------------------------------------------------------------------------


def test_squared_gradient_norm() -> None:
    stage = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False), nn.Linear(2, 1))
    stage[1].weight = stage[0].weight  # counts once
    stage[0].weight.grad = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    stage[2].bias.grad = torch.tensor([12.0])
    assert squared_gradient_norm(stage) == pytest.approx(169)
    assert squared_gradient_norm(list(stage.parameters()) + [stage[2].bias]) == pytest.approx(169)
    assert squared_gradient_norm(nn.Linear(2, 2)) == 0
    stage[2].bias.grad = torch.tensor([1e30])  # its square is no float32
    assert squared_gradient_norm(stage) == pytest.approx(1e60)
    stage[2].bias.grad = torch.tensor([math.nan])
    assert math.isnan(squared_gradient_norm(stage))
