"""What snapshots are compared with: full copies on other hosts, as NVRx's local checkpoints keep them.

Ranks form cliques of as many as there shall be copies (`CliqueReplicationStrategy`). All of a clique gather
each other's state with gloo, then each saves what it has, its own and the others', by torch.save to files in
memory.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from . import namespace

TIMEOUT = timedelta(seconds=120)


class Replica:
    """A rank of `world`, in cliques of `copies`; `folder`: of the files. In the network namespace of the
    process `host`."""

    def __init__(self, host: int, rank: int, world: int, copies: int, folder: str) -> None:
        namespace.enter(host)
        torch.set_num_threads(1)
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        self._rank, self._copies, self._folder = rank, copies, Path(folder)
        store = f"file://{folder}/store"
        dist.init_process_group("gloo", store, TIMEOUT, world_size=world, rank=rank)
        groups = [dist.new_group(range(first, first + copies)) for first in range(0, world, copies)]
        self._clique = groups[rank // copies]

    def make(self, size: int) -> None:
        """A state, and room for those of the clique: its pages are touched by the first turn."""
        self._own = torch.rand(size // 4, generator=torch.Generator().manual_seed(self._rank))
        self._all = [torch.empty_like(self._own) for _ in range(self._copies)]

    def replicate(self) -> dict[str, float]:
        """When it began, when all copies were here, and when they were saved."""
        begun = time.monotonic()
        dist.all_gather(self._all, self._own, group=self._clique)
        gathered = time.monotonic()
        for number, copy in enumerate(self._all):
            path = self._path(number)
            torch.save(copy, path.with_suffix(".dirty"))
            path.with_suffix(".dirty").rename(path)
        return {"begun": begun, "gathered": gathered, "saved": time.monotonic()}

    def check(self) -> bool:
        """Whether each file holds the state that it shall."""
        first = self._rank // self._copies * self._copies
        for number in range(self._copies):
            expected = torch.rand(self._own.numel(), generator=torch.Generator().manual_seed(first + number))
            if not torch.equal(torch.load(self._path(number)), expected):
                return False
        return True

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._rank}-{number}.pt"

    def end(self) -> Any:
        dist.destroy_process_group()
