"""usage: remote_ranks RANK WORLD PORT ENDPOINT URL FOLDER WORD - a rank of a run with a remote; its folder
may be its
host's own (the folder then has {rank} in it). `save`: saves, uploads; `load`: loads and checks."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from pccl_py import Checkpointer

ROWS = 1 << 12


def main(rank: int, world: int, port: int, endpoint: str, url: str, folder: str, word: str) -> None:
    store = dist.TCPStore("127.0.0.1", port, world, is_master=rank == 0, timeout=timedelta(seconds=60))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    options = {"endpoint_url": endpoint, "key": "key", "secret": "secret"}
    whole = torch.arange(ROWS * 512.0).reshape(ROWS, 512)
    with Checkpointer(
        url, local=Path(folder.format(rank=rank)), remote_options=options, timeout_s=50.0
    ) as saving:
        if word == "save":
            for step in (1, 2):
                saving.save(step, {"x": {"w": distribute_tensor(whole * step, mesh, [Shard(0)])}})
            saving.wait(level="remote")
            assert saving.steps(level="remote") == [1, 2] and saving.stats.uploaded == 2
        else:
            state = {"w": distribute_tensor(torch.zeros(ROWS, 512), mesh, [Shard(0)])}
            info = saving.load({"x": state})
            assert info.step == 2 and torch.equal(state["w"].full_tensor(), whole * 2)
            print(f"fetched {info.fetched}", flush=True)
            assert saving.load({"x": state}).fetched == 0
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
