"""torch's reconfigure contract on real processes: what the ranks of test_reconfigure.py do."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import pccl_py.distributed as our_dist

from .gang import say
from .plays_churn import caught, die

TIMEOUT = timedelta(seconds=20)


class Rank:
    """A rank of a group that has no peers yet, and a store to tell the others of its handle."""

    def __init__(self, rank: int, ranks: int, path: str) -> None:
        self.rank, self.ranks = rank, ranks
        self.store = dist.FileStore(path, ranks)
        options = our_dist.Options(enable_reconfigure=True)
        store = dist.FileStore(path + "-group", ranks)
        dist.init_process_group(
            "pccl", store=store, rank=rank, world_size=ranks, pg_options=options, timeout=TIMEOUT
        )
        self.group: Any = dist.group.WORLD

    def collect(self, name: str, members: int | None = None) -> list[str]:
        self.store.set(f"{name} {self.rank}", self.group.get_reconfigure_handle())
        return [self.store.get(f"{name} {rank}").decode() for rank in range(members or self.ranks)]

    def together(self, name: str) -> None:
        self.collect(f"together {name}")

    def reconfigure(self, uuid: int, handles: Any, timeout: timedelta | None = None) -> None:
        options = our_dist.ReconfigureOptions(uuid=uuid, handles=handles, timeout=timeout)
        assert self.group.reconfigure(options).wait()
        assert self.group is dist.group.WORLD

    def sum(self) -> float:
        tensor = torch.full((4,), self.rank + 1.0)
        dist.all_reduce(tensor)
        return tensor[0].item()


def contract(*, rank: int, ranks: int, path: str) -> None:
    """Grow, shrink, split, merge, reorder, abort: each time the sum of those who are in it."""
    me = Rank(rank, ranks, path)
    before = caught(me.sum)
    assert me.group.supports_reconfigure and dist.get_world_size() == ranks
    name = me.group.group_name
    me.reconfigure(100 + rank, [me.group.get_reconfigure_handle()])
    alone = me.sum()
    me.reconfigure(110, me.collect("all"))
    everybody = me.sum()
    handles = me.collect("split")
    half = handles[:2] if rank < 2 else handles[2:]
    me.reconfigure(120 + (rank >= 2), half)
    halves = me.sum()
    me.reconfigure(130, set(me.collect("merge")))
    merged = me.sum()
    me.reconfigure(140, me.collect("reverse")[::-1])
    reverse = dist.get_rank(), me.sum()
    handles = me.collect("shrink")
    if rank != 1:
        me.reconfigure(150, [handle for r, handle in enumerate(handles) if r != 1])
    else:
        excluded = caught(me.sum)
    shrunk = None if rank == 1 else (dist.get_rank(), me.sum())
    right, left = (dist.get_rank() + 1) % dist.get_world_size(), (dist.get_rank() - 1) % dist.get_world_size()
    message = torch.zeros(1)
    if rank != 1:
        works = [dist.isend(torch.full((1,), 1.0 + rank), right), dist.irecv(message, left)]
        for work in works:
            work.wait()
    me.together("before abort")
    me.group.abort()
    me.reconfigure(160, me.collect("after abort"))
    again = caught(me.reconfigure, 160, me.collect("again"))
    assert me.group.group_name == name
    say(
        before=before,
        sums=[alone, everybody, halves, merged],
        reverse=reverse,
        shrunk=shrunk,
        message=message.item(),
        excluded=excluded if rank == 1 else None,
        aborted=me.sum(),
        again=again,
    )
    me.together("end")
    dist.destroy_process_group()


def failing(*, rank: int, ranks: int, path: str) -> None:
    """One of the members dies instead of coming: the others are the group that they were."""
    me = Rank(rank, ranks, path)
    first = [0, 1, 2]
    handles = me.collect("first")
    if rank in first:
        me.reconfigure(1, [handles[r] for r in first])
    sums = [me.sum()] if rank in first else []
    handles = me.collect("second")
    if rank == 3:
        die()
    began = time.monotonic()
    failed = caught(me.reconfigure, 2, handles, timedelta(seconds=1))
    took = time.monotonic() - began
    sums.append(me.sum())
    wrong = caught(me.reconfigure, 3, ["no handle", handles[rank]])
    missing = caught(me.reconfigure, 4, [handle for r, handle in enumerate(handles) if r != rank])
    sums.append(me.sum())
    me.reconfigure(5, me.collect("third", 3)[::-1])
    sums.append(me.sum())
    say(failed=failed, took=took, wrong=wrong, missing=missing, sums=sums, rank=dist.get_rank())
    dist.destroy_process_group()


def after_a_death(*, rank: int, ranks: int, path: str) -> None:
    """DDP goes on, the same object, in a group of the survivors; it is the first rank that dies."""
    me = Rank(rank, ranks, path)
    me.reconfigure(1, me.collect("first"))
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(2, 1, bias=False))
    torch.nn.init.ones_(model.module.weight)
    error = str(me.group.get_error())

    def step() -> list[float]:
        model.zero_grad()
        model(torch.full((1, 2), 1.0 + rank)).sum().backward()
        assert model.module.weight.grad is not None
        return [float(value) for value in model.module.weight.grad.view(-1)]

    grads = [step()]
    if rank == 0:
        die()
    lost = caught(step)
    after = str(me.group.get_error())
    me.store.set(f"alive {rank}", me.group.get_reconfigure_handle())
    me.reconfigure(2, [me.store.get(f"alive {r}").decode() for r in range(1, ranks)])
    grads.append(step())
    say(grads=grads, lost=lost, errors=[error, after, str(me.group.get_error())])
    dist.destroy_process_group()
