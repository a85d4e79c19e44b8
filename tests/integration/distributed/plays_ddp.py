"""DDP under the backend: what the ranks of test_ddp.py do."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

import pccl_py.distributed as ours
from pccl_py.distributed import invitation

from .gang import say

STEPS, KILL_STEP = 7, 3
kept: list[Any] = []  # until the rank ends: a freed model of gloo now and then waits for ever


def batch(step: int, origin: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the rank that `origin` was at the start."""
    generator = torch.Generator().manual_seed(1000 * step + origin)
    x = torch.randn(16, 8, generator=generator)
    return x, x.sum(1, keepdim=True)


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    tanh, linear = torch.nn.Tanh, torch.nn.Linear
    return torch.nn.Sequential(linear(8, 32), tanh(), linear(32, 32), tanh(), linear(32, 1))


def optimizer(net: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


def digest(net: torch.nn.Module) -> str:
    parts = [tensor.detach().contiguous().numpy().tobytes() for tensor in net.state_dict().values()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def flat(net: torch.nn.Module) -> list[float]:
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()]).tolist()


def die() -> None:
    say(killed_at=time.time())
    os.kill(os.getpid(), signal.SIGKILL)


def init(backend: str, rank: int, ranks: int, path: str) -> None:
    dist.init_process_group(backend, init_method=f"file://{path}", rank=rank, world_size=ranks)


def init_by_env(rank: int, ranks: int, port: int) -> None:
    """As torchrun sets it: rank 0 has the store that they meet in, and starts the master."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PCCL_ORPHAN_S": "1"}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks)}
    dist.init_process_group("pccl")


def train(
    *,
    rank: int,
    ranks: int,
    path: str,
    backend: str,
    victim: int = -1,
    where: str = "",
    port: int = 0,
    **options: Any,
) -> None:
    """Seven steps; the victim dies in the fourth, at `where`. The same DDP object trains on."""
    if port:
        init_by_env(rank, ranks, port)
        say(master=invitation(path + f"-secret{rank}").partition("//")[2].partition("?")[0])
    else:
        init(backend, rank, ranks, path)
    net = model()
    ddp = DistributedDataParallel(net, bucket_cap_mb=0.001, **options)  # three buckets
    inner = optimizer(net)
    step, errors = 0, 0
    armed = [False]
    if where == "backward":
        net[2].weight.register_hook(lambda gradient: die() if armed[0] else None)
    while step < STEPS:
        armed[0] = rank == victim and step == KILL_STEP
        x, y = batch(step, rank)
        try:
            if armed[0] and where == "before":
                die()
            loss = (ddp(x) - y).square().mean()
            if armed[0] and where == "forward":
                die()
            loss.backward()
            if armed[0] and where == "optimizer":
                die()
        except RuntimeError as error:
            say(error=str(error), types=[kind.__name__ for kind in type(error).__mro__])
            inner.zero_grad()
            errors += 1
            assert errors < 4
            continue
        inner.step()
        inner.zero_grad()
        say(step=step, at=time.time(), loss=loss.item(), rank=dist.get_rank(), world=dist.get_world_size())
        step += 1
    say(weights=flat(net), digest=digest(net), errors=errors)
    if backend == "gloo":
        kept.append(ddp)
    dist.destroy_process_group()


def powersgd(*, rank: int, ranks: int, path: str, backend: str) -> None:
    """torch's own hook: the call on one reduction's future begins another one, and waits for its future."""
    init(backend, rank, ranks, path)
    net = model()
    ddp = DistributedDataParallel(net)
    state = PowerSGDState(None, matrix_approximation_rank=2, start_powerSGD_iter=2, random_seed=3)
    ddp.register_comm_hook(state, powerSGD_hook)
    inner = optimizer(net)
    for step in range(4):
        x, y = batch(step, rank)
        (ddp(x) - y).square().mean().backward()
        inner.step()
        inner.zero_grad()
    say(weights=flat(net))
    if backend == "gloo":
        kept.append(ddp)
    dist.destroy_process_group()


def nested(*, rank: int, ranks: int, path: str) -> None:
    """Three reductions deep; then many, whose calls come in the order of their ends."""
    init("pccl", rank, ranks, path)

    def reduced(value: torch.Tensor, depth: int) -> torch.Tensor:
        future = dist.all_reduce(value, async_op=True).get_future()
        if depth == 0:
            return future.wait()[0]  # type: ignore[no-any-return]
        return future.then(lambda f: reduced(f.value()[0], depth - 1)).wait()

    say(value=reduced(torch.ones(3), 3).tolist(), threads=threading.active_count())
    called: list[int] = []
    futures = [dist.all_reduce(torch.ones(2), async_op=True).get_future() for _ in range(20)]
    for index, future in enumerate(futures):
        future.then(lambda _, index=index: called.append(index)).wait()
    say(called=called, threads=threading.active_count())
    dist.destroy_process_group()


def by_tcp(*, rank: int, ranks: int, path: str, port: int, door: str) -> None:
    """A sum, by torch's functions or by ours; the store of tcp:// is in the process of rank 0."""
    url = f"tcp://127.0.0.1:{port}"
    if door == "torch":
        dist.init_process_group("pccl", init_method=url, rank=rank, world_size=ranks)
        functions: Any = dist
    else:
        ours.init_process_group(init_method=url, rank=rank, world_size=ranks)
        functions = ours
    tensor = torch.full((1000,), float(rank + 1))
    functions.all_reduce(tensor)
    say(values=tensor.unique().tolist(), world=functions.get_world_size())
    functions.destroy_process_group()
