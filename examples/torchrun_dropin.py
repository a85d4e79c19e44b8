"""A script for torch.distributed, on this library: change the import, or only the backend.

    python examples/torchrun_dropin.py                        # both, under torchrun, on this host
    torchrun --nproc-per-node 2 examples/torchrun_dropin.py functions

`functions` uses pccl_py.distributed in place of torch.distributed; `backend` stays with torch.distributed and
says init_process_group("pccl"), and so has DDP, FSDP and the rest of torch too.
"""

from __future__ import annotations

import os
import subprocess
import sys

import torch


def functions() -> None:
    import pccl_py.distributed as dist  # was: import torch.distributed as dist

    dist.init_process_group()
    rank, world = dist.get_rank(), dist.get_world_size()
    tensor = torch.full((1_000_000,), rank + 1.0)
    dist.all_reduce(tensor, op=dist.ReduceOp.AVG)
    names: list[str | None] = [None] * world
    dist.all_gather_object(names, f"rank {rank} in process {os.getpid()}")
    dist.barrier()
    if rank == 0:
        print(
            f"functions: the mean of 1 to {world} is {tensor[0].item()}, "
            f"here were {', '.join(map(str, names))}"
        )
    dist.destroy_process_group()


def backend() -> None:
    import torch.distributed as dist

    import pccl_py  # noqa: F401  # not needed where the package is installed: torch finds it

    dist.init_process_group("pccl")  # was: "gloo"
    torch.manual_seed(0)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(20, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(dist.get_rank())
    for _ in range(100):
        x = torch.randn(32, 20, generator=generator)
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if dist.get_rank() == 0:
        print(f"backend: {dist.get_world_size()} ranks trained with DDP, the last loss is {loss.item():.2e}")
    dist.destroy_process_group()


def main() -> None:
    if "RANK" not in os.environ:  # not under torchrun yet
        for part in sys.argv[1:] or ["functions", "backend"]:
            torchrun = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--local-addr=127.0.0.1",
                "--nproc-per-node",
                "2",
            ]
            subprocess.run([*torchrun, __file__, part], check=True, env={"OMP_NUM_THREADS": "1"} | os.environ)
        return
    {"functions": functions, "backend": backend}[sys.argv[1]]()


if __name__ == "__main__":
    main()
