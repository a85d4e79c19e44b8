"""Functional collectives, plain and under torch.compile: what the ranks of test_compiled.py do."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch.nn.parallel import DistributedDataParallel

from .gang import say
from .plays_ddp import batch, init, model


def mixed(x: torch.Tensor, name: str) -> torch.Tensor:
    """Each functional collective once, with arithmetic between them."""
    total = functional.all_reduce(x + 1, "sum", name)
    mean = functional.all_reduce(x * 2, "avg", name)
    gathered = functional.all_gather_tensor(total * mean, 0, name)
    scattered = functional.reduce_scatter_tensor(gathered.cos(), "sum", 0, name)
    both = functional.all_reduce_coalesced([scattered, x], "sum", name)
    rows = functional.all_gather_into_tensor_coalesced([both[0], both[1]], name)
    parts = functional.reduce_scatter_tensor_coalesced([rows[0], rows[1]], "sum", [0, 0], name)
    swapped = functional.all_to_all_single(parts[0], None, None, name)
    return functional.broadcast(swapped, 0, name) + parts[1]


def in_place(x: torch.Tensor) -> torch.Tensor:
    """torch.distributed's own functions, which the compiler replaces by functional ones."""
    y = x * 2
    dist.all_reduce(y)
    rows = torch.empty((2 * y.shape[0], *y.shape[1:]))
    dist.all_gather_into_tensor(rows, y + 1)
    part = torch.empty_like(y)
    dist.reduce_scatter_tensor(part, rows.sin())
    return part


def functional_collectives(*, rank: int, ranks: int, path: str, backend: str) -> None:
    init(backend, rank, ranks, path)
    name = dist.group.WORLD.group_name
    x = torch.arange(8.0).reshape(4, 2) / 10 + rank
    compiled = torch.compile(mixed, backend="aot_eager", fullgraph=True)
    replaced = torch.compile(in_place, backend="aot_eager", fullgraph=True)
    for case, result in (
        ("plain", mixed(x, name)),
        ("compiled", compiled(x, name)),
        ("in place", in_place(x)),
        ("in place, compiled", replaced(x)),
    ):
        say(case=case, numbers=result.reshape(-1).tolist())
    net = torch.compile(DistributedDataParallel(model()), backend="aot_eager")
    inner = torch.optim.SGD(net.parameters(), lr=0.1)
    losses = []
    for step in range(3):
        x, y = batch(step, rank)
        loss = (net(x) - y).square().mean()
        loss.backward()
        inner.step()
        inner.zero_grad()
        losses.append(loss.item())
    say(case="DDP, compiled", numbers=losses)
    dist.destroy_process_group()


def a_death_between(*, rank: int, ranks: int, path: str) -> None:
    """The compiled function raises where its collective fails, and works again after that."""
    init("pccl", rank, ranks, path)
    name = dist.group.WORLD.group_name

    def total(x: torch.Tensor) -> torch.Tensor:
        return functional.all_reduce(x * 2, "sum", name) + 1

    compiled: Any = torch.compile(total, backend="aot_eager", fullgraph=True)
    before = compiled(torch.ones(2)).tolist()
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        compiled(torch.ones(2))
    except RuntimeError as error:
        say(before=before, error=str(error), after=compiled(torch.ones(2)).tolist())
    dist.destroy_process_group()
