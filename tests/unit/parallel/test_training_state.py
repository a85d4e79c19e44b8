"""What a newcomer is given, copied by hand from one state to another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pccl_py.errors import UsageError
from pccl_py.parallel import ElasticSampler
from pccl_py.parallel.leaves import leaves_of, plain_of, tensors_of, with_plain
from pccl_py.parallel.training_state import TrainingState

OPTIMIZERS: dict[str, Any] = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, dampening=0.5),
    "plain sgd": lambda p: torch.optim.SGD(p, lr=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "tensor lr": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01), foreach=False),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
}


class Peer:
    def __init__(self, kind: str, seed: int, rates: str = "cosine") -> None:
        torch.manual_seed(seed)
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
        self.optimizer = OPTIMIZERS[kind](self.net.parameters())
        schedulers = torch.optim.lr_scheduler
        if rates == "cosine":
            self.rates: Any = schedulers.CosineAnnealingLR(self.optimizer, 50)
        else:
            self.rates = schedulers.SequentialLR(
                self.optimizer,
                [schedulers.LinearLR(self.optimizer), schedulers.MultiStepLR(self.optimizer, [2, 4])],
                [2],
            )
        self.sampler = ElasticSampler(50, global_batch=5)
        self.state = TrainingState(self.net, self.optimizer, self.sampler, {"rates": self.rates})

    def step(self, seed: int) -> None:
        x = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed))
        self.net(x).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.rates.step()

    def train(self, steps: int) -> None:
        self.sampler.seat([1])
        for seed in range(steps):
            self.step(seed)
            self.sampler.commit(self.sampler.used(1), [1])
        self.state.steps, self.state.member = steps, True


def heal(newcomer: Peer, donor: Peer) -> None:
    survey = torch.maximum(donor.state.survey(), newcomer.state.survey())
    given, taken = (
        {k: v for part in peer.state.prepare(survey) for k, v in part.tensors.items()}
        for peer in (donor, newcomer)
    )
    assert given.keys() == taken.keys()
    for name, tensor in taken.items():
        if isinstance(tensor, np.ndarray):
            tensor[:] = given[name]
        else:
            tensor.copy_(given[name])
    for peer in (donor, newcomer):
        peer.state.taken()
        peer.state.complete()


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("rates", ["cosine", "sequence"])
@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_a_newcomer_goes_on_as_the_donor_would(kind: str, rates: str, prepared: bool) -> None:
    donor, newcomer = Peer(kind, 1, rates), Peer(kind, 2, rates)
    if prepared:
        newcomer.state.rehearse()
    donor.train(3)
    before = donor.state.digest()
    heal(newcomer, donor)
    assert donor.state.digest() == before == newcomer.state.digest()
    assert newcomer.state.steps == newcomer.sampler.step == 3
    for seed in (10, 11, 12):
        for peer in (donor, newcomer):
            peer.step(seed)
    assert donor.state.digest() == newcomer.state.digest()
    assert donor.rates.get_last_lr() == newcomer.rates.get_last_lr()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_founder_that_prepared_itself_begins_as_if_it_had_not(kind: str) -> None:
    plain, prepared = Peer(kind, 1), Peer(kind, 1)
    prepared.state.rehearse()
    assert prepared.state.survey().tolist() == plain.state.survey().tolist()
    heal(prepared, plain)
    for seed in range(3):
        for peer in (plain, prepared):
            peer.step(seed)
    pairs = zip(plain.net.parameters(), prepared.net.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_model_with_other_parameters_is_refused() -> None:
    peer = Peer("adamw", 1)
    with pytest.raises(UsageError, match="different numbers of parameters"):
        peer.state.prepare(peer.state.survey()[:-1])


def test_a_sampler_that_was_loaded_wins_over_newcomers() -> None:
    peer = Peer("adamw", 1)
    peer.train(3)
    resumed = TrainingState(peer.net, peer.optimizer, peer.sampler, {})
    assert resumed.revision == 4 and Peer("adamw", 2).state.revision == 0


def test_leaves() -> None:
    tree = {"a": [1, (2.5, None)], "b": {"c": "text", "d": torch.ones(2)}, "e": True}
    assert plain_of(tree, "t") == [1, 2.5, None, "text", True]
    assert list(tensors_of(tree, "t")) == ["t.b.d"]
    changed = with_plain(tree, iter([3, 4.5, 6, "other", False]))
    assert changed["a"] == [3, (4.5, 6)] and changed["b"]["c"] == "other" and changed["e"] is False
    assert changed["b"]["d"] is tree["b"]["d"]
    with pytest.raises(UsageError, match="others than this peer's"):
        with_plain(tree, iter([1]))
    with pytest.raises(UsageError, match=r"t\.x is a set"):
        list(leaves_of({"x": {1}}, "t"))
