"""FSDP, DTensor and checkpoints under a backend: each says numbers that must not depend on it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import pccl_py.distributed as elastic

from .gang import say
from .plays_ddp import batch, die, init, model


def steps(net: Any, parameters: Any, origin: int, count: int = 3, clip: bool = True) -> list[float]:
    inner = (
        parameters if isinstance(parameters, torch.optim.Optimizer) else torch.optim.AdamW(parameters, 1e-2)
    )
    losses = []
    for step in range(count):
        x, y = batch(step, origin)
        loss = (net(x) - y).square().mean()
        loss.backward()
        if isinstance(net, FullyShardedDataParallel):
            net.clip_grad_norm_(1.0)
        elif clip:
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        inner.step()
        inner.zero_grad()
        losses.append(loss.item())
    return losses


def full(net: Any) -> list[float]:
    state = get_model_state_dict(net, options=StateDictOptions(full_state_dict=True))
    return torch.cat([t.float().reshape(-1) for t in state.values()]).tolist() if state else []


def fsdp1(rank: int) -> None:
    net = FullyShardedDataParallel(model(), device_id=torch.device("cpu"))
    say(case="fsdp1", numbers=steps(net, net.parameters(), rank))


def fsdp2(rank: int, mesh: DeviceMesh, case: str, **options: Any) -> None:
    net = model()
    for layer in net:
        if isinstance(layer, torch.nn.Linear):
            fully_shard(layer, mesh=mesh, **options)
    fully_shard(net, mesh=mesh, **options)
    say(case=case, numbers=steps(net, net.parameters(), rank), weights=full(net))


def tensor_parallel(mesh: DeviceMesh) -> None:
    net = parallelize_module(model(), mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    say(case="tensor parallel", numbers=steps(net, net.parameters(), 0, clip=False))


def dtensor(mesh: DeviceMesh) -> None:
    whole = torch.arange(24.0).reshape(6, 4)
    rows = distribute_tensor(whole, mesh, [Shard(0)])
    columns = rows.redistribute(mesh, [Shard(1)])
    ones = distribute_tensor(torch.ones(4, 3), mesh, [Shard(0)])
    product = (columns @ ones).redistribute(mesh, [Replicate()])  # partial sums
    assert isinstance(columns, DTensor)
    say(
        case="dtensor",
        numbers=product.to_local().reshape(-1).tolist() + columns.full_tensor().sum(0).tolist(),
    )


def checkpoint(rank: int, mesh: DeviceMesh, folder: str) -> None:
    net = fully_shard(model(), mesh=mesh)
    steps(net, net.parameters(), rank, 1)
    before = full(net)
    dcp.save({"net": net.state_dict()}, checkpoint_id=folder)
    steps(net, net.parameters(), rank, 2)
    assert full(net) != before or rank
    state = {"net": net.state_dict()}
    dcp.load(state, checkpoint_id=folder)
    net.load_state_dict(state["net"])
    after = full(net)
    assert after == before
    say(case="dcp", numbers=[], weights=after)


def zero1(rank: int) -> None:
    net = DistributedDataParallel(model())
    inner = ZeroRedundancyOptimizer(net.parameters(), torch.optim.AdamW, lr=1e-2)
    say(case="zero-1", numbers=steps(net, inner, rank))


def all_cases(*, rank: int, ranks: int, path: str, backend: str) -> None:
    init(backend, rank, ranks, path)
    mesh = init_device_mesh("cpu", (ranks,))
    zero1(rank)
    fsdp1(rank)
    fsdp2(rank, mesh, "fsdp2")
    bf16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    fsdp2(rank, mesh, "fsdp2, bf16", mp_policy=bf16)
    grid = init_device_mesh("cpu", (2, ranks // 2), mesh_dim_names=("replicate", "shard"))
    fsdp2(rank, grid, "hsdp")
    tensor_parallel(mesh)
    dtensor(mesh)
    checkpoint(rank, mesh, f"{Path(path).parent}/checkpoint")
    dist.barrier()
    dist.destroy_process_group()


def hsdp_with_a_death(*, rank: int, ranks: int, path: str, victim: int) -> None:
    """Three replicas of one shard each; one dies in the second step's backward. The others repeat that step
    with the same objects."""
    init("pccl", rank, ranks, path)
    grid = init_device_mesh("cpu", (ranks, 1), mesh_dim_names=("replicate", "shard"))
    net = model()
    armed = [False]
    net[2].register_full_backward_hook(lambda *_: die() if armed[0] else None)
    for layer in net:
        if isinstance(layer, torch.nn.Linear):
            fully_shard(layer, mesh=grid)
    fully_shard(net, mesh=grid)
    inner = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    step, errors = 0, 0
    while step < 4:
        x, y = batch(step, rank)
        armed[0] = rank == victim and step == 1
        try:
            (net(x) - y).square().mean().backward()
        except RuntimeError as error:
            say(error=str(error))
            inner.zero_grad()
            errors += 1
            assert errors < 4
            continue
        inner.step()
        inner.zero_grad()
        step += 1
    sharded = inner.param_groups[0]["params"]
    local = torch.cat([p.to_local().detach().reshape(-1) for p in sharded])
    say(weights=local.tolist(), errors=errors, world=grid["replicate"].get_group().size())
    dist.destroy_process_group()


def replicas_with_a_death(*, rank: int, ranks: int, path: str, victim: int, at: str) -> None:
    """Replicas of two shards each. One rank dies; its sibling learns of it from their shard group and ends.
    The others agree over their shard groups whether a step counts, and repeat it with the same objects."""
    init("pccl", rank, ranks, path)
    grid = init_device_mesh("cpu", (ranks // 2, 2), mesh_dim_names=("replicate", "shard"))
    net = model()
    armed = [False]
    net[0].register_forward_pre_hook(lambda *_: die() if armed[0] and at == "forward" else None)
    net[2].register_full_backward_hook(lambda *_: die() if armed[0] and at == "backward" else None)
    for layer in net:
        if isinstance(layer, torch.nn.Linear):
            fully_shard(layer, mesh=grid)
    fully_shard(net, mesh=grid)
    inner = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    inner.register_step_pre_hook(lambda *_: die() if armed[0] and at == "optimizer" else None)
    step, errors = 0, 0
    while step < 4:
        x, y = batch(step, rank)
        armed[0] = rank == victim and step == 1
        whole = torch.ones(1)
        try:
            (net(x) - y).square().mean().backward()
        except RuntimeError as error:
            say(error=str(error))
            whole.zero_()
        try:
            dist.all_reduce(whole, dist.ReduceOp.MIN, group=grid["shard"].get_group())
        except RuntimeError as error:
            if grid["shard"].get_group().size() < 2:
                say(lost=str(error))
                os._exit(0)
            raise
        if grid["shard"].get_group().size() < 2:
            say(lost="the shard group has shrunk")
            os._exit(0)
        if not whole.item():
            inner.zero_grad()
            errors += 1
            assert errors < 6
            continue
        inner.step()
        inner.zero_grad()
        step += 1
    local = torch.cat([p.to_local().detach().reshape(-1) for p in net.parameters()])
    say(weights=local.tolist(), errors=errors, world=grid["replicate"].get_group().size())
    try:
        dist.barrier()
    except RuntimeError:  # the world hears of the death in its first operation since
        dist.barrier()
    dist.destroy_process_group()


def replicas_with_joiners(*, rank: int, ranks: int, path: str, at: str) -> None:
    """Two replicas of two shards each; the last two ranks are a third one, which knocks while rank 0 is `at`
    a place of its second step. The groups of the old mesh serve until both are there; then all make a mesh,
    and newcomers get model and momentum."""
    net, inner, step, here = None, None, 0, list(range(ranks - 2))
    if rank < ranks - 2:
        init("pccl", rank, ranks - 2, path)
        net, inner = replicas(ranks - 2)
        prepare_to_invite(net, inner, path, at if rank == 0 else "")
    else:
        wait_for(Path(f"{path}-go"))
        dist.init_process_group("pccl", init_method=Path(f"{path}-url").read_text())
    together = 0
    while together < 2:
        elastic.update_topology()
        if dist.get_world_size() == ranks and len(here) < ranks:
            here = list(range(ranks))
            step, net, inner = grown(net, inner, step, ranks)
        if net is None:
            continue
        if rank == 0 and step == 1:
            Path(f"{path}-armed").touch()
        x, y = batch(step, rank)
        (net(x) - y).square().mean().backward()
        inner.step()
        inner.zero_grad()
        say(step=step, used=here)
        together += len(here) == ranks
        step += 1
    local = torch.cat([p.to_local().detach().reshape(-1) for p in net.parameters()])
    say(weights=local.tolist(), shard=net[0].weight.device_mesh["shard"].get_local_rank())
    dist.barrier()
    dist.destroy_process_group()


def replicas(ranks: int) -> tuple[Any, torch.optim.Optimizer]:
    grid = init_device_mesh("cpu", (ranks // 2, 2), mesh_dim_names=("replicate", "shard"))
    net = model()
    for layer in net:
        if isinstance(layer, torch.nn.Linear):
            fully_shard(layer, mesh=grid)
    fully_shard(net, mesh=grid)
    return net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


def prepare_to_invite(net: Any, inner: torch.optim.Optimizer, path: str, at: str) -> None:
    def invite(*_: Any) -> None:
        if Path(f"{path}-armed").exists() and not Path(f"{path}-go").exists():
            Path(f"{path}-url").write_text(elastic.invitation(f"{path}-secret"))
            Path(f"{path}-go").touch()
            time.sleep(0.3)

    if at == "forward":
        net[0].register_forward_pre_hook(invite)
    elif at == "backward":
        net[2].register_full_backward_hook(invite)
    elif at == "optimizer":
        inner.register_step_pre_hook(invite)


def wait_for(file: Path) -> None:
    until = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < until, f"{file.name} has not come"
        time.sleep(0.01)


def grown(net: Any, inner: Any, step: int, ranks: int) -> tuple[int, Any, torch.optim.Optimizer]:
    """Members bring what they have, whole; newcomers nothing."""
    parts: list[torch.Tensor] = []
    for p in [] if net is None else net.parameters():
        parts += [p.full_tensor().detach(), inner.state[p]["momentum_buffer"].full_tensor()]
    new, optimizer = replicas(ranks)
    number = torch.tensor([step])
    dist.broadcast(number, 0)
    for index, p in enumerate(new.parameters()):
        value, momentum = parts[2 * index : 2 * index + 2] or (torch.empty(p.shape), torch.empty(p.shape))
        for whole in (value, momentum):
            dist.broadcast(whole, 0)
        with torch.no_grad():
            p.copy_(distribute_tensor(value, p.device_mesh, p.placements))
        optimizer.state[p]["momentum_buffer"] = distribute_tensor(momentum, p.device_mesh, p.placements)
    return int(number), new, optimizer
