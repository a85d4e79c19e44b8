"""A small model that is trained with DiLoCo, and the same in one process without it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pccl_py.optim import DiLoCo
from tests.fakes import FakeComm, FakeWorld

H = 4
Outer = Callable[[Any], torch.optim.Optimizer]
OUTER: dict[str, Outer] = {
    "nesterov": partial(torch.optim.SGD, lr=0.7, momentum=0.9, nesterov=True),
    "dampened": partial(torch.optim.SGD, lr=0.5, momentum=0.9, dampening=0.5, weight_decay=0.01),
    "adam": partial(torch.optim.Adam, lr=0.01),
    "nadam": partial(torch.optim.NAdam, lr=0.01),  # its state does not begin with zeros
    "adagrad": partial(torch.optim.Adagrad, lr=0.1, initial_accumulator_value=0.3),  # has state before a step
    "plain": partial(torch.optim.SGD, lr=0.7),  # has no state at all
}


_seeding = threading.Lock()  # the generator is the process's, and peers are threads


def net(seed: int = 0) -> nn.Sequential:
    with _seeding:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def batches(peer: int, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1000 + peer)
    return [torch.randn(8, 3, generator=generator) for _ in range(count)]


def inner_step(model: nn.Module, inner: torch.optim.Optimizer, x: Tensor) -> None:
    inner.zero_grad()
    (model(x) - x[:, :2].sin()).square().mean().backward()
    inner.step()


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().float().reshape(-1) for p in model.parameters()])


def sgd(model: nn.Module, lr: float = 0.05) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr)


def train(comm: Any, peer: int, windows: int, *, seed: int = 0, **options: Any) -> tuple[Tensor, list[str]]:
    """The model after that many windows of H steps, and the digest after each."""
    model = net(seed)
    inner = torch.optim.AdamW(model.parameters(), lr=0.01)
    digests = []
    with DiLoCo(comm, model, inner, sync_every=H, **options) as outer:
        for x in batches(peer, windows * H):
            inner_step(model, inner, x)
            if not outer.pending_steps:
                digests.append(outer.state_digest())
    return flat(model), digests


def alone() -> FakeComm:
    return FakeWorld(1).comms[0]


def reference(peers: int, windows: int, outer: Outer) -> Tensor:
    """One process: every peer's window in turn, the mean of their differences, a torch optimizer."""
    shared = net()
    optimizer = outer(shared.parameters())
    inners = []
    for _ in range(peers):
        local = net()
        inners.append((local, torch.optim.AdamW(local.parameters(), lr=0.01)))
    for window in range(windows):
        deltas = []
        for peer, (local, inner) in enumerate(inners):
            local.load_state_dict(shared.state_dict())
            for x in batches(peer, windows * H)[window * H : (window + 1) * H]:
                inner_step(local, inner, x)
            pairs = zip(shared.parameters(), local.parameters(), strict=True)
            deltas.append([p.detach() - q.detach() for p, q in pairs])
        for index, p in enumerate(shared.parameters()):
            p.grad = torch.zeros_like(p)
            for delta in deltas:
                p.grad += delta[index]
            p.grad /= peers
        optimizer.step()
    return flat(shared)
