"""A training state taken apart: names, boxes, owners; and the look that spares the second walk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pccl_py.errors import StateError
from pccl_py.state import TrainState
from pccl_py.state.boxed import Boxed, World, share
from pccl_py.state.fingerprint import Fingerprint
from pccl_py.state.train_state import as_state

ALONE = World(0, 1)


def stepped(module: torch.nn.Module) -> torch.optim.AdamW:
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def test_all_tensors_have_names_and_the_optimizers_have_an_owner() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = stepped(module)
    taken = TrainState(model=module, inner=optimizer).take(ALONE)
    assert "model/0.weight" in taken.boxes and "inner/state/0/exp_avg" in taken.boxes
    assert taken.boxes["model/0.weight"].tensor.data_ptr() == module[0].weight.data_ptr()
    owned = {name for name, owner in taken.owners.items() if owner == id(optimizer)}
    assert {"model/0.weight", "model/1.bias", "inner/state/1/exp_avg_sq", "inner/state/0/step"} <= owned
    # What forward changes belongs to nobody: it is copied before save() returns.
    assert not {"model/1.running_mean", "model/1.num_batches_tracked", "@0/rng/torch"} & set(taken.owners)
    assert set(taken.shared) == {"model", "inner"} and set(taken.private) == {"rng"}


def test_the_second_walk_sees_what_changed() -> None:
    module = torch.nn.Linear(3, 2)
    optimizer = stepped(module)
    state = TrainState(model=module, inner=optimizer, rng=False)
    first = state.take(ALONE)
    optimizer.param_groups[0]["lr"] = 0.5
    second = state.take(ALONE)
    assert first.shared["inner"] != second.shared["inner"]
    assert second.shared["inner"]["param_groups"][0]["lr"] == 0.5
    module.weight.data = torch.zeros(3, 2)  # other memory, another shape, the same object
    third = state.take(ALONE)
    assert third.boxes["model/weight"].shape == (3, 2)
    assert third.boxes["model/weight"].tensor.data_ptr() == module.weight.data_ptr()


@pytest.mark.parametrize(
    ("before", "change"),
    [
        (torch.zeros(3, 2), lambda held: held["x"].t_()),
        (torch.zeros(3, 2), lambda held: held["x"].set_(torch.zeros(3, 2))),
        (torch.zeros(3, 2).t(), lambda held: held["x"].set_(held["x"].t().reshape(2, 3))),
        (torch.zeros(4, 4).t(), lambda held: held["x"].t_()),
        (torch.zeros(4, 4)[::2], lambda held: held["x"].as_strided_((2, 4), (4, 1))),
        (torch.zeros(3), lambda held: setattr(held["x"], "data", held["x"].view(torch.int32))),
        (torch.zeros(3), lambda held: held.update(x=held["x"][:2])),
        (torch.zeros(3), lambda held: held.update(x=3.0)),
        (torch.zeros(3), lambda held: held.update(y=held.pop("x"))),
        (torch.zeros(3), lambda held: held.update(x=held["x"].to_sparse())),
        (torch.zeros(3), lambda held: held.update(x=[held["x"]])),
    ],
)
def test_a_fingerprint_sees_other_memory_and_other_shapes_of_it(
    before: torch.Tensor, change: Callable[[dict[str, Any]], object]
) -> None:
    held: dict[str, Any] = {"x": before, "more": [torch.zeros(2), 7]}
    fingerprint = Fingerprint(held)
    assert fingerprint.matches(held) and fingerprint.matches({**held, "x": held["x"].detach()})
    change(held)
    assert not fingerprint.matches(held)


def test_a_parameter_that_an_optimizer_gets_later_becomes_its_own() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    module[1].requires_grad_(False)
    optimizer = torch.optim.SGD(module[0].parameters(), lr=0.1)
    state = TrainState(model=module, inner=optimizer, rng=False)
    assert "model/1.weight" not in state.take(ALONE).owners  # written by hand, perhaps
    module[1].requires_grad_(True)
    optimizer.add_param_group({"params": list(module[1].parameters())})
    assert state.take(ALONE).owners["model/1.weight"] == id(optimizer)


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"b": 1}, False),
        ([1, [2]], [1, [2]], True),
        ([1, [2]], [1, (2,)], False),
        (list(range(100)), list(range(100)), True),
        (list(range(100)), list(range(1, 101)), False),
        (tuple(range(100)), list(range(100)), False),
        (list(range(100)), [*range(99), 99.0], False),
        ({1, 2}, {1, 2}, False),  # a kind that is not compared is walked again
    ],
)
def test_fingerprints_of_plain_values(before: Any, after: Any, same: bool) -> None:
    assert Fingerprint(before).matches(after) is same


def test_a_list_that_is_changed_in_place_does_not_match_itself() -> None:
    values = list(range(100))
    fingerprint = Fingerprint({"order": values})
    values[7] = 8
    assert not fingerprint.matches({"order": values})


@pytest.mark.parametrize("shape", [(), (1,), (7,), (8, 3), (4096, 128), (3, 1 << 20), (0, 4)])
@pytest.mark.parametrize("holders", [1, 2, 3, 8])
def test_holders_share_each_row_once(shape: tuple[int, ...], holders: int) -> None:
    tensor = torch.empty(shape)
    rows = shape[0] if shape else 1
    covered: list[int] = []
    for holder in range(holders):
        first, last = share(Boxed(tensor, "F32", shape, (0,) * len(shape), holder, holders), 12345)
        covered += range(first, last)
    assert covered == (list(range(rows)) if tensor.numel() else [])


def test_what_cannot_be_saved_is_refused_by_name() -> None:
    with pytest.raises(StateError, match="a/x.*sparse"):
        TrainState(a={"x": torch.eye(2).to_sparse()}, rng=False).take(ALONE)
    with pytest.raises(StateError, match="meta"):
        TrainState(a={"x": torch.empty(2, device="meta")}, rng=False).take(ALONE)
    with pytest.raises(StateError, match=r"\['a'\]\['f'\].*builtin_function"):
        TrainState(a={"f": print}, rng=False).take(ALONE)
    with pytest.raises(StateError, match="a is a int"):
        TrainState(a=3)
    with pytest.raises(StateError, match="no parts"):
        as_state({"model": torch.nn.Linear(1, 1), "weights": torch.ones(1)})
