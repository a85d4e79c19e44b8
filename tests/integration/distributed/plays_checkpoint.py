"""What ranks do in test_checkpoints.py: save in one layout, load in another, and compare whole tensors."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

import pccl_py as pccl

from .gang import say

WIDTH = 37  # divides by nothing: uneven shards, and of the last layer's 3 rows empty ones


def begin(rank: int, ranks: int, path: str, timeout_s: float = 60) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{path}",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=timeout_s),
    )


def over_tcp(rank: int, ranks: int, path: str) -> None:
    """With the store that torchrun has, in rank 0."""
    import socket

    if rank == 0:
        with socket.socket() as asked:
            asked.bind(("127.0.0.1", 0))
            port = asked.getsockname()[1]
        Path(path + ".port.part").write_text(str(port))
        os.rename(path + ".port.part", path + ".port")
    while not os.path.exists(path + ".port"):
        time.sleep(0.01)
    port = int(Path(path + ".port").read_text())
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)


def raw_model(seed: int) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(WIDTH, 2 * WIDTH),
        torch.nn.LayerNorm(2 * WIDTH),
        torch.nn.Linear(2 * WIDTH, WIDTH, bias=False),
        torch.nn.Linear(WIDTH, 3),
    )


def laid_out(layout: str, seed: int, ranks: int) -> torch.nn.Module:
    """The model in one of the layouts that torch offers."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    model: torch.nn.Module = raw_model(seed)
    if layout == "fsdp":
        mesh = init_device_mesh("cpu", (ranks,))
    elif layout == "hsdp":
        mesh = init_device_mesh("cpu", (2, ranks // 2), mesh_dim_names=("replicas", "shards"))
    elif layout in ("tp", "tp+fsdp"):
        data = ranks // 2 if layout == "tp+fsdp" else 1
        whole = init_device_mesh("cpu", (data, ranks // data), mesh_dim_names=("data", "tp"))
        plan = {
            "0": ColwiseParallel(output_layouts=_replicate()),
            "2": RowwiseParallel(input_layouts=_replicate()),
        }
        parallelize_module(model, whole["tp"], plan)
        if layout == "tp":
            return model
        mesh = whole["data"]
    elif layout == "ddp":
        return torch.nn.parallel.DistributedDataParallel(model)
    else:
        assert layout == "plain"
        return model
    for index in (0, 2):
        fully_shard(model[index], mesh=mesh)  # type: ignore[index]
    fully_shard(model, mesh=mesh)
    return model


def _replicate() -> Any:
    from torch.distributed.tensor import Replicate

    return Replicate()


def whole(tree: Any) -> dict[str, torch.Tensor]:
    """All tensors of a state_dict(), gathered, by a name."""
    found: dict[str, torch.Tensor] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, DTensor):
            found[name] = value.detach().full_tensor().clone()
        elif isinstance(value, torch.Tensor):
            found[name] = value.detach().clone()
        elif isinstance(value, dict):
            for key, item in value.items():
                add(f"{name}.{key}".replace(".module.", "."), item)

    add("", tree)
    return found


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int, first: int) -> None:
    """The same batch on all ranks, so that every layout trains the same model."""
    for step in range(first, first + steps):
        batch = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(step))
        loss = model(batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def save(rank: int, ranks: int, path: str, layout: str, root: str, expected: str, steps: int = 3) -> None:
    """Trains, saves as step 3 while training goes on, and rank 0 keeps the whole tensors of step 3 and
    later."""
    begin(rank, ranks, path)
    model = laid_out(layout, 0, ranks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, foreach=False)
    train(model, optimizer, steps, 0)
    moment = {"model": whole(model.state_dict()), "inner": whole(optimizer.state_dict())}
    with pccl.Checkpointer(root, timeout_s=40) as saver:
        assert saver.save(steps, pccl.TrainState(model=model, inner=optimizer))
        train(model, optimizer, 2, steps)
        info = saver.wait()
        assert info is not None and info.step == steps
        assert saver.steps() == [steps]
        say(bytes=info.bytes)
    moment["later"] = whole(model.state_dict())
    if rank == 0:
        torch.save(moment, expected)
    dist.barrier()


def load(rank: int, ranks: int, path: str, layout: str, root: str, expected: str, steps: int = 3) -> None:
    """Loads into a model with other values; bits are the same, and training goes on as it did."""
    begin(rank, ranks, path)
    moment = torch.load(expected)
    model = laid_out(layout, 9, ranks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5.0, foreach=False)
    with pccl.Checkpointer(root, timeout_s=40) as saver:
        info = saver.load(pccl.TrainState(model=model, inner=optimizer))
    assert info.step == steps and not info.unexpected and not info.skipped
    same(whole(model.state_dict()), moment["model"], layout)
    same(whole(optimizer.state_dict()), moment["inner"], layout)
    train(model, optimizer, 2, steps)
    later = whole(model.state_dict())
    for name, value in moment["later"].items():
        torch.testing.assert_close(later[name], value, rtol=1e-4, atol=1e-6, msg=name)
    say(missing=list(info.missing), exact=all(torch.equal(later[n], v) for n, v in moment["later"].items()))
    dist.barrier()


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], what: str) -> None:
    assert found.keys() == wanted.keys(), (what, found.keys() ^ wanted.keys())
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), (what, name)


# ---- commits that fail ------------------------------------------------------------------------------------


def tensors_of(step: int, rank: int) -> dict[str, Any]:
    """As if sharded: each rank has a tensor of its own, and all have one together."""
    return {
        "x": {"all": torch.full((300_000,), float(step)), "small": torch.tensor(step)},
        "data": {"own": torch.full((50_000,), step * 10.0 + rank), "at": step * 100 + rank},
    }


def check(state: dict[str, Any], step: int, rank: int) -> None:
    wanted = tensors_of(step, rank)
    for part, values in wanted.items():
        for name, value in values.items():
            found = state[part][name]
            equal = torch.equal(found, value) if isinstance(value, torch.Tensor) else found == value
            assert equal, (step, rank, part, name)


def blank() -> dict[str, Any]:
    return {
        "x": {"all": torch.zeros(300_000), "small": torch.tensor(-1)},
        "data": {"own": torch.zeros(50_000), "at": -1},
    }


def saver_for(ways: str, rank: int, ranks: int, path: str, root: str, **options: Any) -> pccl.Checkpointer:
    """By the folder alone, or over the store of a process group."""
    if ways == "folder":
        return pccl.Checkpointer(root, process_group=(rank, ranks), **options)
    over_tcp(rank, ranks, path)
    return pccl.Checkpointer(root, **options)


def killed(
    rank: int, ranks: int, path: str, root: str, ways: str, victim: int, after_s: float, timeout_s: float
) -> None:
    """Saves step after step; the victim is killed at some moment. The others hear of it in time, by name."""
    import signal
    import threading

    saver = saver_for(ways, rank, ranks, path, root, timeout_s=timeout_s, keep=3)
    first = (saver.latest() or 0) + 1
    threading.Timer(after_s if rank == victim else 1e6, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    begun = time.monotonic()
    for step in range(first, first + 1000):
        begun = time.monotonic()
        try:
            saver.save(step, tensors_of(step, rank))
            saver.wait()
        except pccl.CheckpointError as error:
            say(heard=str(error), seconds=time.monotonic() - begun)
            break
    with suppress(pccl.CheckpointError):
        saver.close()  # rank 0 has the store: it waits here until the others have heard, too
    os._exit(0)


def survey(rank: int, ranks: int, path: str, root: str, ways: str) -> None:
    """The next run: every step that there is is whole, the newest one loads, and saving goes on."""
    saver = saver_for(ways, rank, ranks, path, root, timeout_s=30, keep=3)
    leftovers = [p.name for p in Path(root).glob("step-*") if not (p / "manifest.json").exists()]
    for step in saver.steps():
        state = blank()
        saver.load(state, step)
        check(state, step, rank)
    latest = saver.latest()
    if latest is not None:
        state = blank()
        info = saver.load(state)
        assert info.step == latest and not info.skipped
        check(state, latest, rank)
    step = (latest or 0) + 1
    saver.save(step, tensors_of(step, rank))
    saver.wait()
    state = blank()
    saver.load(state)
    check(state, step, rank)
    saver.close()
    say(latest=latest, leftovers=leftovers if latest else [])


def refused(rank: int, ranks: int, path: str, root: str, ways: str) -> None:
    """One rank's save() raises while the others wait for its shard: they hear why, at once."""
    saver = saver_for(ways, rank, ranks, path, root, timeout_s=30)
    saver.save(1, tensors_of(1, rank))
    saver.wait()
    state: dict[str, Any] = tensors_of(2, rank)
    if rank == 1:
        state["x"]["all"] = object()
    begun = time.monotonic()
    try:
        saver.save(2, state)
        saver.wait()
        heard = ""
    except pccl.CheckpointError as error:
        heard = str(error)
    seconds = time.monotonic() - begun
    saver.save(3, tensors_of(3, rank))  # the next one is none the worse
    saver.wait()
    steps = saver.steps()
    state = blank()
    assert saver.load(state).step == 3
    check(state, 3, rank)
    saver.close()
    say(heard=heard, seconds=seconds, steps=steps, failed=saver.stats.failed)


def different(rank: int, ranks: int, path: str, root: str) -> None:
    """What should be the same on all ranks is not: named on all, and nothing is there."""
    saver = saver_for("store", rank, ranks, path, root, timeout_s=30)
    try:
        saver.save(1, {"x": {"number": rank}})
        saver.wait()
        heard = ""
    except pccl.CheckpointError as error:
        heard = str(error)
    say(heard=heard, steps=saver.steps())
    saver.close()


def absent(rank: int, ranks: int, path: str, root: str, ways: str) -> None:
    """A rank that does not save, and one that never closes."""
    saver = saver_for(ways, rank, ranks, path, root, timeout_s=2)
    if rank == ranks - 1:
        time.sleep(9)
        os._exit(0)
    begun = time.monotonic()
    heard = ""
    try:
        saver.save(1, tensors_of(1, rank))
        saver.close()
    except pccl.CheckpointError as error:
        heard = str(error)
    say(heard=heard, seconds=time.monotonic() - begun)
    os._exit(0)


def policies(rank: int, ranks: int, path: str, root: str) -> None:
    """Ranks of different speed skip the same saves."""
    from pccl_py.checkpoint import native

    saver = saver_for("store", rank, ranks, path, root, timeout_s=30, on_busy="skip", in_flight=1, keep=100)
    if rank == 1:
        saver._disk = native.InjectedDisk("pwrite * delay 30")
    saved = []
    for step in range(12):
        if saver.save(step, tensors_of(step, rank)):
            saved.append(step)
        time.sleep(0.01)
    saver.wait()
    assert saver.steps() == saved, (saver.steps(), saved)
    saver.close()
    say(saved=saved)


# ---- hosts with folders of their own ----------------------------------------------------------------------


def host(rank: int, hosts: list[int], roots: str) -> str:
    return f"{roots}/host{hosts[rank]}"


def hosts_save(rank: int, ranks: int, path: str, roots: str, hosts: list[int], steps: list[int]) -> None:
    saver = saver_for("store", rank, ranks, path, host(rank, hosts, roots), timeout_s=30, keep=2)
    for step in steps:
        saver.save(step, tensors_of(step, rank))
        saver.wait()
    say(steps=saver.steps())
    saver.close()


def hosts_load(rank: int, ranks: int, path: str, roots: str, hosts: list[int]) -> None:
    saver = saver_for("store", rank, ranks, path, host(rank, hosts, roots), timeout_s=30, keep=2)
    state, heard, step = blank(), "", None
    try:
        info = saver.load(state)
        step = info.step
        check(state, step, rank)
        heard = "; ".join(why for _, why in info.skipped)
    except pccl.CheckpointError as error:
        heard = str(error)
    say(step=step, heard=heard, steps=saver.steps())
    saver.close()


# ---- torch.distributed.checkpoint -------------------------------------------------------------------------


def dcp_save(rank: int, ranks: int, path: str, root: str, expected: str) -> None:
    """Ordinary code for dcp; only the writer is ours."""
    from torch.distributed import checkpoint as dcp

    from pccl_py.checkpoint.dcp import StorageWriter

    begin(rank, ranks, path)
    model = laid_out("fsdp", 0, ranks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    train(model, optimizer, 2, 0)
    writer = StorageWriter()
    moments, waits = [], []
    groups = [dist.new_group(backend="gloo") for _ in range(2)]  # dcp's own collectives beside the training's
    for number in (1, 2):  # the second begins while the first may be under way
        state = {
            "model": model.state_dict(),
            "inner": optimizer.state_dict(),
            "epoch": number,
            "more": (1, "x"),
        }
        moments.append(whole(state))
        waits.append(
            dcp.async_save(
                state,
                checkpoint_id=f"{root}/{number}",
                storage_writer=StorageWriter(),
                process_group=groups[number - 1],
            )
        )
        train(model, optimizer, 1, number + 1)
    for wait in waits:
        wait.result()
    state = {"model": model.state_dict(), "inner": optimizer.state_dict(), "epoch": 3, "more": (1, "x")}
    moments.append(whole(state))
    dcp.save({"model": model.state_dict(), "epoch": -1}, checkpoint_id=f"{root}/3", storage_writer=writer)
    dcp.save(state, checkpoint_id=f"{root}/3", storage_writer=writer)  # in place of the other
    heard = ""
    try:
        dcp.save({"model": object()}, checkpoint_id=f"{root}/4", storage_writer=writer)
    except BaseException as error:
        heard = repr(error)
    if rank == 0:
        torch.save(moments, expected)
    dist.barrier()
    say(heard=heard)


def dcp_load(rank: int, ranks: int, path: str, root: str, expected: str, layout: str) -> None:
    from torch.distributed import checkpoint as dcp

    from pccl_py.checkpoint.dcp import StorageReader

    begin(rank, ranks, path)
    for number, moment in enumerate(torch.load(expected), 1):
        model = laid_out(layout, 5, ranks)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        train(model, optimizer, 1, 0)  # dcp loads into what is there
        state = {"model": model.state_dict(), "inner": optimizer.state_dict(), "epoch": 0, "more": None}
        dcp.load(state, storage_reader=StorageReader(f"{root}/{number}"))
        same(whole({"model": state["model"], "inner": state["inner"]}), moment, layout)
        assert state["epoch"] == number and tuple(state["more"]) == (1, "x"), state["more"]
    dist.barrier()
    say(done=True)


# ---- over a Communicator of its own -----------------------------------------------------------------------


def over_communicator(rank: int, ranks: int, path: str, root: str, address: str, victim: int | None) -> None:
    """No process group; a training Communicator passes boundaries while saves are under way."""
    import signal

    config = pccl.Config(heartbeat_ms=100, heartbeats_missed_max=20)
    with (
        pccl.Communicator(address, min_islands=ranks, start_rank=rank, config=config) as comm,
        pccl.Communicator(
            address, run_name="checkpoints", min_islands=ranks, start_rank=rank, config=config
        ) as quiet,
    ):
        saver = pccl.Checkpointer(root, process_group=quiet, timeout_s=20, keep=2)
        number = quiet.rank
        first = (saver.latest() or 0) + 1
        if saver.latest() is not None:
            state = blank()
            info = saver.load(state)
            check(state, info.step, number)
        for step in range(first, first + 6):
            if number == victim and step == first + 3:
                saver.save(step, tensors_of(step, number))
                os.kill(os.getpid(), signal.SIGKILL)
            begun = time.monotonic()
            try:
                saver.save(step, tensors_of(step, number))
                comm.all_reduce(torch.ones(1000))
                comm.update_topology()
                saver.wait()
            except pccl.CheckpointError as error:
                say(heard=str(error), seconds=time.monotonic() - begun)
                # Who heard first and left would be gone, too, for who hears last.
                Path(f"{root}.heard{number}").touch()
                others = [Path(f"{root}.heard{other}") for other in range(ranks) if other != victim]
                while not all(map(Path.exists, others)) and time.monotonic() < begun + 30:
                    time.sleep(0.01)
                break
        else:
            assert saver.latest() == first + 5
        with suppress(pccl.CheckpointError):
            saver.close()
        say(latest=saver.latest())
