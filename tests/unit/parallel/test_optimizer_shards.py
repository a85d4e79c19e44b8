"""Optimizer state that exists before the first step: named, given to another one, and never stepped by it."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from pccl_py.errors import UsageError  # noqa: E402
from pccl_py.parallel.optimizer_shards import OptimizerShards  # noqa: E402

MAKERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, initial_accumulator_value=0.5),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.1),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.1),
}


def model(seed: int) -> Any:
    torch.manual_seed(seed)
    return torch.nn.Linear(3, 2)


def step(net: Any, optimizer: Any, seed: int) -> None:
    torch.manual_seed(seed)
    net(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def flat(net: Any) -> list[float]:
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()]).tolist()  # type: ignore[no-any-return]


def shards_of(net: Any, optimizer: Any) -> OptimizerShards:
    return OptimizerShards(optimizer, {p: name for name, p in net.named_parameters()})


@pytest.mark.parametrize("kind", MAKERS)
def test_the_rehearsal_leaves_no_trace(kind: str) -> None:
    nets = [model(0), model(0)]
    plain, watched = (MAKERS[kind](net.parameters()) for net in nets)
    counted: list[int] = []
    watched.register_step_post_hook(lambda *_: counted.append(1))
    shards = shards_of(nets[1], watched)
    assert counted == []
    for seed in range(3):
        if seed < 2:
            shards.tensors(), shards.take()  # with itself: changes nothing
        for net, optimizer in zip(nets, (plain, watched), strict=True):
            step(net, optimizer, seed)
        assert flat(nets[0]) == flat(nets[1])


@pytest.mark.parametrize("donor_steps", [0, 1, 3])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_joiner_goes_on_as_the_donor_does(kind: str, donor_steps: int) -> None:
    nets = [model(0), model(1)]
    donor, joiner = (MAKERS[kind](net.parameters()) for net in nets)
    for seed in range(donor_steps):
        step(nets[0], donor, seed)
    donor.param_groups[0]["lr"] = 0.05
    given, taken = shards_of(nets[0], donor), shards_of(nets[1], joiner)
    ours, theirs = given.tensors(), taken.tensors()
    assert ours.keys() == theirs.keys() and given.layout() == taken.layout()
    for name, tensor in theirs.items():
        tensor.copy_(ours[name])
    taken.take()
    nets[1].load_state_dict(nets[0].state_dict())
    for seed in range(10, 13):
        for net, optimizer in zip(nets, (donor, joiner), strict=True):
            step(net, optimizer, seed)
        assert flat(nets[0]) == flat(nets[1])
    assert joiner.param_groups[0]["lr"] == 0.05


def test_settings_are_part_of_the_layout() -> None:
    net = model(0)
    one, other, third = (
        shards_of(net, torch.optim.AdamW(net.parameters(), lr=rate, betas=(beta, 0.9))).layout()
        for rate, beta in ((0.1, 0.5), (0.2, 0.5), (0.1, 0.6))
    )
    assert one == other != third


def test_what_cannot_be_shared_is_refused() -> None:
    net = model(0)
    with pytest.raises(UsageError, match="not the model's"):
        shards_of(net, torch.optim.SGD(model(1).parameters(), lr=0.1))
    before = flat(net)
    with pytest.raises(UsageError, match="without arguments"):
        shards_of(net, torch.optim.LBFGS(net.parameters()))
    assert flat(net) == before


class Counting(torch.optim.SGD):  # type: ignore[misc,name-defined]
    """Keeps a number that is no tensor."""

    def step(self, closure: Any = None) -> Any:
        for p in self.param_groups[0]["params"]:
            self.state[p]["count"] = self.state[p].get("count", 0) + 1
        return super().step(closure)


def test_numbers_that_are_no_tensors_are_refused_by_name() -> None:
    net = model(0)
    with pytest.raises(UsageError, match="'count' is a int, no tensor"):
        shards_of(net, Counting(net.parameters(), lr=0.1))
