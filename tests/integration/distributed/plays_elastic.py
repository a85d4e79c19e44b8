"""Elastic data parallelism: what the peers of test_elastic.py do. Each says its share before it trains."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from pccl_py import Communicator, Config
from pccl_py.parallel import ElasticSampler, elastic_data_parallel

from .gang import say
from .plays_ddp import die

SAMPLES, BATCH = 640, 16
CONFIG = Config(heartbeat_ms=200, heartbeats_missed_max=20)
TINY_MB = 0.0005  # a bucket for nearly each parameter
Arm = Callable[[], None]


class Data(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Sample i, whoever asks. `column`, `columns`: those of one group of an island's ranks."""

    def __init__(self, column: int = 0, columns: int = 1) -> None:
        self._column, self._columns = column, columns

    def __len__(self) -> int:
        return SAMPLES // self._columns

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return sample(index * self._columns + self._column)


def sample(index: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(8, generator=torch.Generator().manual_seed(index))
    return x, x.sum().sin().reshape(1)


def model() -> torch.nn.Sequential:
    torch.manual_seed(0)
    tanh, linear = torch.nn.Tanh, torch.nn.Linear
    return torch.nn.Sequential(linear(8, 32), tanh(), linear(32, 32), tanh(), linear(32, 1))


def optimizer(net: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), lr=0.01)


def scheduler(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)


def train(*, rank: int, ranks: int, path: str, address: str, **options: Any) -> None:
    """A plain peer, or one in DDP. `joins`: this rank waits until the others are in step JOIN_AT."""
    joins: Sequence[int] = options.get("joins", ())
    founders = ranks - len(joins)
    net = model()
    if options.get("ddp"):
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    wrapped = DistributedDataParallel(net) if options.get("ddp") else net
    if rank in joins:
        with torch.no_grad():  # whatever it began with
            [p.add_(1) for p in net.parameters()]
        delay_tensors(options.get("delay_s", 0.0))
        await_file(Path(path + ".join"))
    wanted = 1 if rank in joins else founders
    with Communicator(address, min_islands=wanted, config=CONFIG, timeout=40) as comm:
        loop(comm, wrapped, Data(), rank, path, 0, options)


def loop(comm: Any, net: Any, data: Data, rank: int, path: str, group: int, options: dict[str, Any]) -> None:
    inner = optimizer(net)
    rates = scheduler(inner)
    sampler = ElasticSampler(len(data), global_batch=BATCH // data._columns, seed=3)
    run = elastic_data_parallel(
        net, comm, inner, sampler=sampler, extra={"rates": rates}, bucket_cap_mb=TINY_MB
    )
    victim = options.get("kills", {}).get(str(rank))
    arm = armed(net, inner, victim[0]) if victim else ignore
    say(began=run.steps, id=comm.id)
    for x, y in run.batches(data, steps=options["steps"], num_workers=options.get("workers", 0)):
        step = run.steps
        say(step=step, id=comm.id, share=sampler.share(comm.id), group=group)
        if rank == 0 and step == options.get("join_at"):
            Path(path + ".join").touch()
            until = time.monotonic() + 30
            while comm.waiting == 0 and time.monotonic() < until:
                time.sleep(0.01)
        if victim and step == victim[1]:
            arm()
        loss = (net(x) - y).square().mean()
        loss.backward()
        mean = run.mean(loss)
        inner.step()
        inner.zero_grad()
        rates.step()
        if run.steps == step:  # this step was void here: the others went on without this peer
            say(void=step)
            continue
        say(digest=run.digest(), done=step, id=comm.id, contributors=run.contributors, loss=mean, group=group)
        if victim and step == victim[1] and victim[0] == "between":
            die()
    state = {"position": sampler.ledger.position, "returned": sampler.ledger.returned}
    weights = [] if options.get("sharded") else flat(net)
    say(end=run.steps, digest=run.digest(), weights=weights, lr=rates.get_last_lr()[0], **state)
    comm.barrier(scope="run")


def armed(net: Any, inner: torch.optim.Optimizer, where: str) -> Arm:
    """What makes this peer die by SIGKILL in that part of the step which begins then."""

    def arm() -> None:
        first, last = net_layers(net)[0], net_layers(net)[-1]
        if where == "forward":
            last.register_forward_pre_hook(lambda *_: die())
        elif where == "backward":  # the last layers' gradients are reduced, with this peer's
            first.register_full_backward_hook(lambda *_: (time.sleep(0.2), die()))
        elif where == "reduce":
            die_behind("post")
        elif where == "committed":
            die_behind("finish")
        elif where == "stopped":
            stop(3.0)  # the others go on without it
        elif where == "optimizer":
            inner.register_step_pre_hook(lambda *_: (until_its_island_is_there(), die()))

    return arm


def until_its_island_is_there() -> None:
    """The loss of each of its ranks is in the means, which they told before."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()


def die_behind(method: str) -> None:
    """Behind what is posted last, or behind the commit."""
    from pccl_py.parallel.step import _LAST
    from pccl_py.parallel.step_reduction import StepReduction

    original = getattr(StepReduction, method)

    def replaced(self: Any, *arguments: Any) -> Any:
        found = original(self, *arguments)
        if method == "finish" or arguments[0] == _LAST:
            die()
        return found

    setattr(StepReduction, method, replaced)


def delay_tensors(seconds: float) -> None:
    """This peer fetches what differs so much later than it could."""
    from pccl_py.state_sync import StateSync

    original = StateSync._on_elected

    def replaced(self: StateSync, *arguments: Any) -> None:
        time.sleep(seconds)
        original(self, *arguments)

    StateSync._on_elected = replaced  # type: ignore[method-assign]


def stop(seconds: float) -> None:
    """SIGSTOP, until a child wakes this process up."""
    if os.fork() == 0:
        time.sleep(seconds)
        os.kill(os.getppid(), signal.SIGCONT)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGSTOP)


def ignore() -> None:
    pass


def net_layers(net: Any) -> list[torch.nn.Module]:
    return [module for module in net.modules() if isinstance(module, torch.nn.Linear)]


def flat(net: torch.nn.Module) -> list[float]:
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()]).tolist()


def await_file(path: Path) -> None:
    until = time.monotonic() + 40
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)


# ---- islands -----------------------------------------------------------------------------------------------


def islands(*, rank: int, ranks: int, path: str, address: str, **options: Any) -> None:
    """FSDP2 inside islands of two ranks, peers across: rank r of each is in group r."""
    island, inside = divmod(rank, 2)
    name = "abc"[island]
    dist.init_process_group("gloo", init_method=f"file://{path}.{name}", rank=inside, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    net = model()
    for layer in net_layers(net):
        fully_shard(layer, mesh=mesh)
    fully_shard(net, mesh=mesh)
    joins = island in options.get("joins", ())
    if joins:
        with torch.no_grad():
            [p.add_(1) for p in net.parameters()]
        await_file(Path(path + ".join"))
    founders = ranks // 2 - len(options.get("joins", ()))
    with Communicator(
        address, island=name, island_size=2, group=inside,
        min_islands=1 if joins else founders, config=CONFIG, timeout=40,
    ) as comm:  # fmt: skip
        loop(comm, net, Data(inside, 2), rank, path, inside, options | {"sharded": True})
    dist.destroy_process_group()
