"""torchft's Manager and our process group, replicas that are killed and replaced."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import pccl_py.distributed as our_dist

from .gang import say
from .plays_churn import die

STEPS = 12
KILLED_IN = 3  # the first replica, before its all_reduce
RATE = 0.5


def gradient(rank: int, step: int) -> torch.Tensor:
    return torch.full((1000,), (rank + 1.0) * (step + 1))


def managed(*, rank: int, ranks: int, path: str, over: str = "http") -> None:
    """The last rank is the lighthouse; the one before it comes when the first one has been killed."""
    folder = Path(path).parent
    if rank == ranks - 1:
        return lighthouse(folder, ranks - 2)
    if rank == ranks - 2:
        wait_for(folder / "killed")
    train(rank, wait_for(folder / "lighthouse"), folder, over)
    (folder / f"done{rank}").touch()


def lighthouse(folder: Path, trainers: int) -> None:
    from torchft.coordination import LighthouseServer

    server = LighthouseServer(
        bind="127.0.0.1:0", min_replicas=2, join_timeout_ms=500, heartbeat_timeout_ms=1000
    )
    part = folder / "lighthouse.part"
    part.write_text(f"http://127.0.0.1:{server.address().rsplit(':', 1)[1]}")
    part.rename(folder / "lighthouse")
    for rank in range(1, trainers + 1):
        wait_for(folder / f"done{rank}")
    server.shutdown()


def wait_for(file: Path) -> str:
    while not file.exists():
        time.sleep(0.01)
    return file.read_text()


def train(rank: int, address: str, folder: Path, over: str) -> None:
    from torchft.manager import Manager

    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    weight = torch.zeros(1000)
    group = our_dist.new_reconfigurable_group()
    placed: list[bool] = []

    def load(state: dict[str, torch.Tensor]) -> None:
        placed.append(state["weight"].data_ptr() == weight.data_ptr())
        weight.copy_(state["weight"])

    own = {"user": {"default": {"weight": weight}}}
    transport = our_dist.CheckpointTransport(group, state_dict=lambda: own) if over == "group" else None
    manager: Any = Manager(
        pg=group,
        load_state_dict=load,
        checkpoint_transport=transport,
        state_dict=lambda: {"weight": weight.clone()},
        min_replica_size=2,
        use_async_quorum=False,
        timeout=timedelta(seconds=15),
        rank=0,
        world_size=1,
        store_addr="127.0.0.1",
        store_port=store.port,
        lighthouse_addr=address,
        replica_id=f"replica{rank}",
        hostname="127.0.0.1",
        init_sync=False,
    )
    while manager.current_step() < STEPS:
        step, begun = manager.current_step(), time.monotonic()
        manager.start_quorum()
        step = manager.current_step()  # what it was healed to
        mean = gradient(rank, step)
        if rank == 0 and step == KILLED_IN:
            (folder / "killed").touch()
            die()
        manager.allreduce(mean).wait()
        committed = manager.should_commit()
        if committed:
            weight -= RATE * mean
        seconds = time.monotonic() - begun
        say(step=step, committed=committed, weight=weight[0].item(), same=len(set(weight.tolist())) == 1,
            size=group.size(), placed=placed, seconds=seconds)  # fmt: skip
        time.sleep(0.1)
    manager.shutdown(wait=False)
    group.shutdown()
