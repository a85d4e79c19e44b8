"""Data parallelism that does not stop: of three peers one is killed, another comes, all hold the same bits.

    python examples/elastic_training.py [--ddp]

Every peer runs `train()`, whose loop is that of one process. The master is in this process.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import pccl_py as pccl
from pccl_py.parallel import ElasticSampler, elastic_data_parallel

STEPS, KILLED_AT, NEWCOMER_AT = 80, 20, 40


class Data(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Sample i is the same whoever asks for it."""

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(20, generator=torch.Generator().manual_seed(index))
        return x, x.sum().sin().reshape(1)


def train(address: str, name: str, in_ddp: bool) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.005)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    sampler = ElasticSampler(len(Data()), global_batch=48, seed=1)
    model: torch.nn.Module = net
    if in_ddp:  # a process group of this peer alone
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        model = DistributedDataParallel(net)

    def join() -> pccl.Communicator:
        return pccl.Communicator(address, min_islands=1 if name == "newcomer" else 3)

    with elastic_data_parallel(model, join, optimizer, sampler=sampler, extra={"rates": rates}) as run:
        begun, here = run.steps, run.contributors
        for x, y in run.batches(Data(), steps=STEPS, num_workers=2):
            if name == "b" and run.steps == KILLED_AT:
                os.kill(os.getpid(), signal.SIGKILL)
            loss = (model(x) - y).square().mean()
            loss.backward()
            mean = run.mean(loss)
            if run.contributors != here:
                here = run.contributors
                print(f"{name}: step {run.steps}: the samples of peers {here}, loss {mean:.3f}", flush=True)
            optimizer.step()
            optimizer.zero_grad()
            rates.step()
            time.sleep(0.02)  # so that a person can follow
            if name == "a" and run.steps == NEWCOMER_AT:
                print("a: calls the newcomer", flush=True)
                await_newcomer(run.comm)
        bits = b"".join(p.detach().numpy().tobytes() for p in net.parameters())
        digest = hashlib.sha256(bits).hexdigest()[:16]
        print(f"{name}: steps {begun} to {run.steps}, loss {mean:.3f}, sha256 {digest}", flush=True)


def await_newcomer(comm: pccl.Communicator) -> None:
    """Its start takes longer than this whole run."""
    until = time.monotonic() + 60
    with suppress(pccl.Evicted):  # silent for too long, on a busy machine: the next batch brings it back
        while comm.waiting == 0 and time.monotonic() < until:
            time.sleep(0.01)


def main() -> int:
    in_ddp = "--ddp" in sys.argv
    words = [word for word in sys.argv[1:] if word != "--ddp"]
    if words:
        train(words[0], words[1], in_ddp)
        return 0
    with pccl.Master("127.0.0.1:0") as master:
        command = [sys.executable, __file__, *["--ddp"] * in_ddp, master.address]
        pipe = subprocess.PIPE
        first = subprocess.Popen([*command, "a"], stdout=pipe, text=True)
        others = [subprocess.Popen([*command, name]) for name in "bc"]
        assert first.stdout is not None
        for line in first.stdout:
            print(line, end="", flush=True)
            if "calls the newcomer" in line:
                others.append(subprocess.Popen([*command, "newcomer"]))
        statuses = [process.wait() for process in (first, *others)]
    print(f"exit statuses: {statuses}, one by SIGKILL")
    return 0 if statuses == [0, -signal.SIGKILL, 0, 0] else 1


if __name__ == "__main__":
    sys.exit(main())
