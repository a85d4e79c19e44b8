"""Islands of FSDP ranks: what the ranks of test_islands.py do. Rank r of a play is rank r % 2 of island r // 2."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

import pccl_py
from pccl_py import Config
from pccl_py.parallel import Island

from .gang import say
from .plays_churn import die

SIZE = 2
QUICK = Config(heartbeat_ms=100, heartbeats_missed_max=10)


def join_island(rank: int, path: str, backend: str = "gloo", size: int = SIZE) -> tuple[str, int]:
    """Name of the island, and the place in it; torch.distributed then is this island's."""
    number, place = divmod(rank, SIZE)
    store = f"file://{path}-island{number}"
    dist.init_process_group(backend, init_method=store, rank=place, world_size=size)
    return "abcdef"[number], place


def net(seed: int, width: int = 12) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, width), torch.nn.Tanh(), torch.nn.Linear(width, 3))


def sharded(model: Any, kind: str, **options: Any) -> Any:
    if kind == "fsdp1":
        return FullyShardedDataParallel(model, device_id=torch.device("cpu"))
    if kind == "fsdp1 parameters":
        return FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=True)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in (model[0], model[2]):
        fully_shard(layer, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


def batch(step: int, stream: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1000 * stream + step))
    return x, x[:, :3].sin()


def loss_of(model: Any, step: int, stream: int) -> torch.Tensor:
    x, y = batch(step, stream)
    loss: torch.Tensor = (model(x) - y).square().mean()
    return loss


def values(model: Any) -> list[float]:
    return torch.cat([shard.reshape(-1) for shard in Island_shards(model)]).tolist()


def Island_shards(model: Any) -> list[torch.Tensor]:
    from pccl_py.parallel.island_layout import local_shards

    return list(local_shards(model).values())


def train(
    *,
    rank: int,
    ranks: int,
    path: str,
    address: str,
    kind: str = "fsdp2",
    backend: str = "gloo",
    founders: int = 2,
    steps: int = 6,
    victim: int = -1,
    at: str = "",
    step: int = 2,
    silent: bool = False,
) -> None:
    """Trains; `victim` dies in `step`. Islands from `founders` on come when an island is lost."""
    name, place = join_island(rank, path, backend)
    island_number = rank // SIZE
    model = sharded(net(island_number), kind)
    inner = torch.optim.AdamW(model.parameters(), lr=1e-2)
    late = island_number >= founders
    while late and not Path(path + "-lost").exists():
        time.sleep(0.01)
    if late:
        name = "b"
    options: dict[str, Any] = {"config": QUICK, "min_islands": 1 if late else founders}
    armed = [False]
    first = model if kind != "fsdp2" else model[0]
    first.register_forward_pre_hook(lambda *_: _die_if(armed[0] and at == "forward"))
    last = model if kind != "fsdp2" else model[2]
    last.register_full_backward_hook(lambda *_: _die_if(armed[0] and at == "backward"))
    try:
        with Island(address, model, inner, name=name, inner_timeout=20, join_timeout=60, **options) as island:
            wanted = ranks // SIZE - founders
            while island.steps < steps or (wanted and island.admissions < wanted):
                with island.step():
                    count = island.steps
                    armed[0] = rank == victim and count == step
                    loss = loss_of(model, count, rank)
                    loss.backward()
                    _die_if(armed[0] and at == "reduce", island)
                    info = island.all_reduce_gradients()
                    _die_if(armed[0] and at == "optimizer")
                    inner.step()
                    inner.zero_grad()
                say(
                    step=count,
                    of=len(info.contributors),
                    digest=island.digest(),
                    loss=loss.item(),
                    islands=island.islands,
                )
                if wanted:
                    time.sleep(0.05)
            say(end=island.digest(), steps=island.steps, values=values(model))
    except pccl_py.IslandLost as error:
        Path(path + "-lost").touch()
        say(lost=str(error))
    os._exit(0)


def _die_if(dying: bool, island: Island | None = None) -> None:
    if not dying:
        return
    if island is not None:
        work = island.comm.all_reduce(torch.ones(1000), scope="run", async_op=True)
        time.sleep(0.01)
        assert work is not None
    die()


def caught(call: Callable[..., Any], *args: Any, **options: Any) -> dict[str, Any]:
    started = time.monotonic()
    try:
        return {"value": repr(call(*args, **options))}
    except Exception as error:
        return {
            "error": str(error),
            "kind": type(error).__name__,
            "seconds": time.monotonic() - started,
        }
