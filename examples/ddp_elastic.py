"""DDP that does not stop: three processes train, rank 0 is killed, a newcomer comes, all hold the same bits.

    python examples/ddp_elastic.py

Every rank runs `train()`. A death raises in backward() on all survivors, who repeat the step with the same
DDP object. At a step boundary newcomers come in; then all wrap the model again, which gives them its
parameters, and the optimizer's state follows through sync_shared_state().
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import pccl_py
import pccl_py.distributed as elastic

KILLED_AT, INVITED_AT, STEPS_TOGETHER = 15, 25, 20


def optimizer_state(optimizer: torch.optim.Optimizer) -> pccl_py.SharedState:
    """Momentum buffers, made where there are none yet, under the names of their parameters."""
    tensors = {}
    for index, parameter in enumerate(optimizer.param_groups[0]["params"]):
        state = optimizer.state[parameter]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        tensors[f"momentum {index}"] = state["momentum_buffer"]
    return pccl_py.SharedState(tensors)


def train(folder: Path, name: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    step = torch.zeros(1, dtype=torch.int64)
    joined = init(folder, name)
    model, end, came = None, None, False
    while end is None or step < end:
        try:
            if model is None or elastic.update_topology():  # a step boundary: somebody came, and all hear it
                came, model = came or joined or model is not None, None
                model = wrap(net, optimizer, step, joined)
                end = int(step) + STEPS_TOGETHER if came else end
                came = joined = False
            if name == "a" and step == KILLED_AT:
                os.kill(os.getpid(), signal.SIGKILL)
            seed = int(step) * 100 + dist.get_rank()
            x = torch.randn(32, 20, generator=torch.Generator().manual_seed(seed))
            loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
            loss.backward()
        except RuntimeError as error:  # somebody died: nobody has stepped
            reason = str(error).splitlines()[0].partition("PeerLost: ")[2]
            print(f"{name}: step {int(step)} again: {reason or error}", flush=True)
            optimizer.zero_grad()
            continue
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        tell(folder, name, int(step), loss.item())
    finish(name, net)


def wrap(
    net: torch.nn.Module, optimizer: torch.optim.Optimizer, step: torch.Tensor, joined: bool
) -> DistributedDataParallel:
    """A collective call: all ranks get rank 0's parameters, step and optimizer state. Where somebody dies in
    it, it raises on all others, who call it again."""
    wrapped = DistributedDataParallel(net)
    dist.broadcast(step, 0)
    state = optimizer_state(optimizer)
    state.revision = int(step)
    elastic.communicator().sync_shared_state(state, "receive_only" if joined else "enforce_popular")
    return wrapped


def tell(folder: Path, name: str, step: int, loss: float) -> None:
    """Behind a step: how it goes, and once an invitation."""
    time.sleep(0.05)  # so that a person can follow
    if dist.get_rank() != 0:
        return
    if step % 10 == 0:
        print(f"{name}: step {step}, {dist.get_world_size()} ranks, loss {loss:.3f}", flush=True)
    if step == INVITED_AT:
        part = folder / "invitation.part"
        part.write_text(elastic.invitation(folder / "secret"))
        part.rename(folder / "invitation")


def finish(name: str, net: torch.nn.Module) -> None:
    bits = b"".join(parameter.detach().numpy().tobytes() for parameter in net.parameters())
    print(
        f"{name}: done, rank {dist.get_rank()} of {dist.get_world_size()}, sha256 "
        f"{hashlib.sha256(bits).hexdigest()[:16]}",
        flush=True,
    )
    dist.barrier()  # whoever leaves makes the others fewer: not before all have told who they are
    dist.destroy_process_group()


def init(folder: Path, name: str) -> bool:
    """Whether this one joins a run that has begun."""
    if name == "newcomer":
        dist.init_process_group("pccl", init_method=(folder / "invitation").read_text())
        return True
    dist.init_process_group(
        "pccl", init_method=f"file://{folder}/store", rank="abc".index(name), world_size=3
    )
    return False


def main() -> int:
    if len(sys.argv) == 3:
        train(Path(sys.argv[1]), sys.argv[2])
        return 0
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, folder]
        ranks = [subprocess.Popen([*command, name]) for name in "abc"]
        while not Path(folder, "invitation").exists() and any(rank.poll() is None for rank in ranks):
            time.sleep(0.05)
        ranks.append(subprocess.Popen([*command, "newcomer"]))
        statuses = [rank.wait() for rank in ranks]
    print(f"exit statuses: {statuses}, the first one by SIGKILL")
    return 0 if statuses == [-signal.SIGKILL, 0, 0, 0] else 1


if __name__ == "__main__":
    sys.exit(main())
