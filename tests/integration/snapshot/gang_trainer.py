"""A rank of a sharded training under `protect`, each on a host of its own as keepers see it: tells what it
resumed from and the bits of the whole model and its moments after each step, whatever the number of ranks.

usage: gang_trainer --master ADDRESS --rank R --world W --store FILE ...
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import pccl_py as pccl
from tests.integration.peers import PATIENT

WIDTH = 64


class Position:
    """In the data, of each rank its own."""

    at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, saved: dict[str, int]) -> None:
        self.at = saved["at"]


def built(world: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(WIDTH, 8 * WIDTH), torch.nn.Linear(8 * WIDTH, WIDTH))
    if world > 1:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2)


def train_step(model: torch.nn.Module, inner: torch.optim.Optimizer, at: int) -> None:
    """All ranks see the same: a mean over 2 or 4 of them has the bits of one."""
    generator = torch.Generator().manual_seed(at)
    model(torch.rand(4, WIDTH, generator=generator)).square().mean().backward()
    inner.step()
    inner.zero_grad()


def bits(model: torch.nn.Module, inner: torch.optim.Optimizer) -> str:
    """Of all ranks together."""
    held = [*model.parameters(), *(one["exp_avg_sq"] for one in inner.state.values())]
    whole = [getattr(one, "full_tensor", lambda one=one: one)().detach() for one in held]
    return f"{zlib.crc32(b''.join(one.numpy().tobytes() for one in whole)):08x}"


def say(**words: Any) -> None:
    print(json.dumps(words) + "\n", end="", flush=True)  # in one write: lines of the log come between two


def savers(options: argparse.Namespace, comm: Any) -> dict[str, Any]:
    name = options.keeper or f"{options.prefix}{options.rank}"
    keep: dict[str, Any] = {}
    more: dict[str, Any] = {}
    if options.folder:
        keep["checkpoints"] = pccl.Checkpointer(options.folder, every=options.save_every or None)
        if options.flush_every:
            more = {"flush_every": options.flush_every, "checkpoints": keep["checkpoints"]}
    keep["snapshots"] = pccl.Snapshots(
        comm, parity=options.parity, every=options.every, run=options.run, trainer=str(options.rank),
        keeper=name, domain=name, orphan_s=120, code_s=options.code_s, **more,
    )  # fmt: skip
    return keep


def main() -> None:
    parser = argparse.ArgumentParser()
    for word in ("master", "store", "folder", "prefix", "keeper", "end"):
        parser.add_argument(f"--{word}", default="")
    parser.add_argument("--run", default="gang")
    for word, value in {"rank": 0, "world": 1, "parity": 0, "every": 2, "steps": 0, "flush-every": 0,
                        "save-every": 0, "founders": 1}.items():  # fmt: skip
        parser.add_argument(f"--{word}", type=int, default=value)
    parser.add_argument("--code-s", type=float, default=60.0)
    parser.add_argument("--handler", action="store_true", help="SIGTERM has one of the training's own")
    options = parser.parse_args()
    with ExitStack() as stack:
        if options.world > 1:
            dist.init_process_group("gloo", init_method=f"file://{options.store}", rank=options.rank,
                                    world_size=options.world)  # fmt: skip
        comm = None
        if options.master:
            comm = stack.enter_context(
                pccl.Communicator(options.master, min_islands=options.founders, config=PATIENT)
            )
        train(options, comm)
    say(end=True)
    if dist.is_initialized():
        dist.destroy_process_group()


def train(options: argparse.Namespace, comm: Any) -> None:
    asked: list[int] = []
    if options.handler:
        signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    model, inner = built(options.world)
    data = Position()
    state = pccl.TrainState(model=model, inner=inner, data=data)
    keep = savers(options, comm)
    snapshots, end = keep["snapshots"], Path(options.end) if options.end else None
    with pccl.protect(state, comm, sigterm_s=15, **keep) as run:
        told = run.resumed_from["inner"]
        first = bits(model, inner) if told.step is not None else ""
        say(source=told.source, step=told.step, why=told.why, at=data.at, run=run.step, bits=first,
            pid=os.getpid())  # fmt: skip
        data.at = max(data.at, run.step)  # of a rank that was not there before
        while run.step < options.steps and not asked and not (end and end.exists()):
            if comm is not None:
                comm.update_topology()
            data.at += 1
            train_step(model, inner, data.at)
            status = snapshots.status()
            saved = keep["checkpoints"].latest() if "checkpoints" in keep else None
            say(step=run.step, bits=bits(model, inner), coded=status.coded, losses=status.losses,
                snapshot=status.step, saved=saved, failed=status.failed, fault=status.fault)  # fmt: skip
            time.sleep(0.02)


if __name__ == "__main__":
    main()
