"""The look that spares a state_dict(): alike exactly while that would say the same of the same memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pccl_py.checkpoint.shard_plans import ShardPlans
from pccl_py.state import TrainState
from pccl_py.state.boxed import World
from pccl_py.state.look import GroupsLook, ModuleLook, StateLook

ALONE = World(0, 1)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 1, bias=False)))


def stepped(module: nn.Module) -> torch.optim.AdamW:
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def replace_scale(module: nn.Module) -> None:
    """By one of the same value, of one element: equal, and not the same."""
    module.scale = nn.Parameter(module.scale.detach().clone())


CHANGES: dict[str, Callable[[Any], object]] = {
    "other memory": lambda m: setattr(m[0].weight, "data", m[0].weight.detach().clone()),
    "transposed": lambda m: setattr(m[0].weight, "data", m[0].weight.data.t()),
    "another dtype": lambda m: m.half(),
    "another parameter": lambda m: setattr(m[0], "weight", nn.Parameter(torch.zeros(3, 3))),
    "an equal one of one element": replace_scale,
    "no bias": lambda m: setattr(m[0], "bias", None),
    "a buffer more": lambda m: m[0].register_buffer("more", torch.zeros(2)),
    "a buffer that is not saved any more": lambda m: m[1]._non_persistent_buffers_set.add("running_mean"),
    "another child": lambda m: m.append(nn.Linear(1, 1)),
    "a child of another class": lambda m: setattr(m[0], "__class__", nn.Identity),
    "a hook": lambda m: m[2].register_state_dict_post_hook(lambda *words: None),
    "a hook before": lambda m: m[2].register_state_dict_pre_hook(lambda *words: None),
    "a state_dict of its own": lambda m: setattr(m[2], "state_dict", lambda **words: {}),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_module_that_is_changed_does_not_look_alike(change: Callable[[Any], object]) -> None:
    module = network()
    module.scale = nn.Parameter(torch.ones(1))
    look = ModuleLook.of(module)
    assert look is not None and look.alike()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)  # values may change
    module(torch.zeros(2, 3))
    assert look.alike()
    change(module)
    assert not look.alike()


class WithExtra(nn.Linear):
    def get_extra_state(self) -> int:
        return 3

    def set_extra_state(self, state: int) -> None: ...


class Renaming(nn.Linear):
    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[prefix + "other"] = self.weight


@pytest.mark.parametrize("kind", [WithExtra, Renaming])
def test_only_torchs_own_state_dict_is_looked_at(kind: type[nn.Module]) -> None:
    assert ModuleLook.of(nn.Sequential(kind(2, 2))) is None


def swap_two(optimizer: torch.optim.Optimizer) -> None:
    parameters = optimizer.param_groups[0]["params"]
    parameters[0], parameters[1] = parameters[1], parameters[0]


STATE_CHANGES: dict[str, Callable[[Any], object]] = {
    "another moment": lambda o: first_of(o).update(exp_avg=torch.zeros(3, 3)),
    "other memory": lambda o: setattr(first_of(o)["exp_avg"], "data", torch.zeros(3, 3)),
    "a value more": lambda o: first_of(o).update(extra=1),
    "an equal step": lambda o: first_of(o).update(step=first_of(o)["step"].clone()),
    "no state": lambda o: o.state.clear(),
    "another order": swap_two,
    "a hook": lambda o: o.register_state_dict_post_hook(lambda *words: None),
    "a hook before": lambda o: o.register_state_dict_pre_hook(lambda *words: None),
}


def first_of(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    found: dict[str, Any] = next(iter(optimizer.state.values()))
    return found


@pytest.mark.parametrize("change", STATE_CHANGES.values(), ids=STATE_CHANGES.keys())
def test_an_optimizers_state_that_is_changed_does_not_look_alike(change: Callable[[Any], object]) -> None:
    optimizer = stepped(network())
    look = StateLook.of(optimizer)
    assert look is not None and look.alike()
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.5
    assert look.alike()
    change(optimizer)
    assert not look.alike()


def test_plain_values_of_a_state_are_compared_with_their_types() -> None:
    optimizer = stepped(network())
    first_of(optimizer)["count"] = 1
    look = StateLook.of(optimizer)
    assert look is not None and look.alike()
    first_of(optimizer)["count"] = 1.0
    assert not look.alike()
    first_of(optimizer)["count"] = {"deeper": 1}
    assert StateLook.of(optimizer) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda o: o.param_groups[0].update(lr=0.5),
        lambda o: o.add_param_group({"params": [torch.zeros(2, requires_grad=True)]}),
        swap_two,
    ],
)
def test_an_optimizers_groups_that_are_changed_do_not_look_alike(change: Callable[[Any], object]) -> None:
    optimizer = stepped(network())
    look = GroupsLook(optimizer)
    assert look.alike()
    optimizer.step()
    assert look.alike()
    change(optimizer)
    assert not look.alike()


def test_parameters_in_another_order_are_saved_under_their_new_numbers() -> None:
    optimizer = stepped(network())
    state = TrainState(inner=optimizer, rng=False)
    first = state.take(ALONE).boxes["inner/state/0/exp_avg"]
    swap_two(optimizer)
    assert state.take(ALONE).boxes["inner/state/1/exp_avg"].tensor is not first.tensor
    assert state.take(ALONE).boxes["inner/state/1/exp_avg"].tensor.data_ptr() == first.tensor.data_ptr()


def test_a_state_that_looks_alike_is_not_asked_for_its_state_dict(monkeypatch: pytest.MonkeyPatch) -> None:
    module = network()
    optimizer = stepped(module)
    state = TrainState(model=module, inner=optimizer, rng=False)
    first = state.take(ALONE)

    def refuse(*words: object, **more: object) -> None:
        raise AssertionError("state_dict() was called")

    monkeypatch.setattr(nn.Module, "_save_to_state_dict", refuse)
    monkeypatch.setattr(torch.optim.Optimizer, "state_dict", refuse)
    optimizer.step()
    second = state.take(ALONE)
    assert all(second.boxes[name] is box for name, box in first.boxes.items())
    assert second.shared == first.shared and second.owners == first.owners


def test_draws_of_random_numbers_leave_the_rest_as_it_was() -> None:
    """They change with each step, of which the plan of a file knows nothing: it stays."""
    module = network()
    state = TrainState(model=module, inner=stepped(module))
    first = state.take(ALONE)
    torch.rand(3)
    random.random()
    np.random.rand()
    second = state.take(ALONE)
    assert second.boxes is first.boxes and second.owners is first.owners and second.objects is first.objects
    assert torch.equal(second.boxes["@0/rng/torch"].tensor, torch.get_rng_state())
    words, before = second.private["rng"], first.private["rng"]
    assert words["torch"] == before["torch"]  # a name
    assert words["python"] != before["python"] and words["numpy"] != before["numpy"]


def test_a_state_without_a_tensor_more_is_planned_once() -> None:
    module = network()
    optimizer = stepped(module)
    state, plans = TrainState(model=module, inner=optimizer), ShardPlans()
    first = plans.content(state.take(ALONE))
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.5
    torch.rand(3)
    assert plans.content(state.take(ALONE)) is first
    module[0].weight.data = torch.zeros(3, 3)
    second = plans.content(state.take(ALONE))
    assert second is not first
    place = {piece.name: place for piece, place in zip(second.pieces, second.places, strict=True)}
    assert place["model/0.weight"] == (module[0].weight.data_ptr(), 36)
    module[1].register_buffer("more", torch.zeros(2))
    assert "model/1.more" in {piece.name for piece in plans.content(state.take(ALONE)).pieces}


def test_taken_at_once_nobody_owns_anything_and_the_state_forgets_nothing() -> None:
    module = network()
    state = TrainState(model=module, inner=stepped(module))
    taken = state.take(ALONE)
    assert taken.owners and taken.at_once().owners == {}
    assert taken.at_once().boxes is taken.boxes
    assert state.take(ALONE).owners == taken.owners != {}


def test_another_tensor_of_the_same_memory_is_walked_anew() -> None:
    """Writes to it are not counted with those of the one before."""
    module = nn.Linear(3, 3)
    more = {"held": torch.zeros(4), "n": 1}
    state = TrainState(model=module, more=more, rng=False)
    first = state.take(ALONE)
    more["n"] = 2
    assert state.take(ALONE).boxes is first.boxes
    module.weight = nn.Parameter(module.weight.data)
    more["held"] = more["held"].view(4)
    more["n"] = 3
    second = state.take(ALONE)
    for name, tensor in (("model/weight", module.weight), ("more/held", more["held"])):
        box = second.boxes[name].tensor
        assert box.data_ptr() == first.boxes[name].tensor.data_ptr()
        counted = box._version
        with torch.no_grad():
            tensor.add_(1)
        assert box._version == counted + 1


def test_an_array_that_is_written_in_place_is_told_anew() -> None:
    held = {"weights": torch.zeros(2), "counts": np.arange(4)}
    state = TrainState(more=held, rng=False)
    first, second = state.take(ALONE), state.take(ALONE)
    assert second.shared["more"] is first.shared["more"]
    held["counts"][2] = 7
    third = state.take(ALONE)
    assert third.shared["more"] != first.shared["more"] and third.boxes is first.boxes
    held["counts"] = held["counts"].reshape(2, 2)
    assert state.take(ALONE).shared["more"] != third.shared["more"]
