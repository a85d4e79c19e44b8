"""Features together: an Island's communicator trains per step, ranks of islands stop, worlds begin anew."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from pccl_py import Communicator, Config
from pccl_py.parallel import ElasticSampler, Island, elastic_data_parallel

from .gang import say
from .plays_churn import die
from .plays_elastic import Data
from .plays_islands import join_island, sharded, stop_for

CONFIG = Config(heartbeat_ms=200, heartbeats_missed_max=10)
BATCH = 16


def net(number: int) -> torch.nn.Sequential:
    """Each island begins with weights of its own."""
    torch.manual_seed(number)
    linear = torch.nn.Linear
    return torch.nn.Sequential(linear(8, 16), torch.nn.Tanh(), linear(16, 1))


def whole(model: Any) -> list[float]:
    """All of the model, on each rank of the island."""
    full = [p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters()]
    return torch.cat([tensor.detach().reshape(-1) for tensor in full]).tolist()


def by_step_across_islands(
    *,
    rank: int,
    ranks: int,
    path: str,
    address: str,
    arrivals: list[int],
    steps: int = 12,
    stopped: list[int] | None = None,
    stop_in: str = "",
    victim: int = -1,
) -> None:
    """elastic_data_parallel() on the communicator of an Island. `arrivals`: ranks, as they come to the door.
    Islands from the third on come when the first two are in step 4."""
    name, place = join_island(rank, path)
    model = sharded(net(rank // 2), "fsdp2")
    inner = torch.optim.AdamW(model.parameters(), lr=0.01)
    late = rank >= 4
    _await(Path(path + "-late") if late else None)
    if not late:
        _await_turn(path, arrivals, rank)
    options: dict[str, Any] = {"config": CONFIG, "min_islands": 1 if late else 2, "timeout": 40}
    data = Data(place, 2)
    sampler = ElasticSampler(len(data), global_batch=BATCH // 2, seed=3)
    comm = Communicator(address, island=name, island_size=2, group=place, **options)
    try:
        with comm, Island(comm, model, inner, inner_timeout=20) as island:
            run = elastic_data_parallel(model, island.comm, inner, sampler=sampler)
            say(began=run.steps, values=whole(model))
            for x, y in run.batches(data, steps=steps):
                step = run.steps
                if rank == 0 and step == 4 and ranks > 4:
                    Path(path + "-late").touch()
                    _await_newcomer(island)
                if rank == 0 and step == 6 and stopped:
                    _await_newcomer(island)
                fault = step == 3 and (rank in (stopped or []) or rank == victim)
                if fault and stop_in == "forward":
                    stop_for(3.5)
                loss = (model(x) - y).square().mean()
                if rank == victim and step == 3:
                    die()
                loss.backward()
                if fault and stop_in == "committed":
                    stop_for(3.5)
                inner.step()
                inner.zero_grad()
                if run.steps == step:
                    say(void=step)
                else:
                    say(step=step, of=len(run.contributors), digest=run.digest())
            say(end=run.digest(), steps=run.steps, values=whole(model))
            island.comm.barrier(scope="run")
            run.close()
    except Exception as error:
        say(lost=str(error), kind=type(error).__name__)
        if victim < 0:
            raise
    os._exit(0)


def timeouts(*, rank: int, ranks: int, path: str, address: str, backend: str) -> None:
    """`inner_timeout` is that of the group which shards the model, whatever its backend."""
    name, _ = join_island(rank, path, backend)
    model = sharded(net(0), "fsdp2")
    with (
        warnings.catch_warnings(record=True) as found,
        Island(address, model, name=name, config=CONFIG, inner_timeout=3) as island,
    ):
        warnings.simplefilter("always")
        if rank == 0:
            began = time.monotonic()
            try:
                dist.all_reduce(torch.ones(1))
                say(ended="without an error")
            except RuntimeError as error:
                say(ended=str(error), seconds=time.monotonic() - began)
            Path(path + "-ended").touch()
        _await(Path(path + "-ended"))
        say(warned=[str(each.message) for each in found], steps=island.steps)
        os._exit(0)


def _await_turn(path: str, arrivals: list[int], rank: int) -> None:
    """Until those before have had time to knock: a door opens for all of them only."""
    turn = arrivals.index(rank)
    _await(Path(f"{path}-turn{turn}") if turn else None)
    Thread(target=lambda: (time.sleep(0.4), Path(f"{path}-turn{turn + 1}").touch()), daemon=True).start()


def _await(path: Path | None) -> None:
    until = time.monotonic() + 30
    while path is not None and not path.exists() and time.monotonic() < until:
        time.sleep(0.01)


def _await_newcomer(island: Island) -> None:
    until = time.monotonic() + 30
    while island.comm.waiting == 0 and time.monotonic() < until:
        time.sleep(0.01)
