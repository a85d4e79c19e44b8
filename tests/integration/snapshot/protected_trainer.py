"""A training under `protect` with snapshots: prints its losses' digests, is killed or goes to its end.

usage: protected_trainer RUN STEPS FOLDER
"""

from __future__ import annotations

import sys
import zlib
from typing import Any

import torch

import pccl_py as pccl


class Position:
    """In the data."""

    at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, saved: dict[str, int]) -> None:
        self.at = saved["at"]


def digest(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> str:
    held = [*model.state_dict().values(), *(s["exp_avg_sq"] for s in optimizer.state.values())]
    return f"{zlib.crc32(b''.join(tensor.numpy().tobytes() for tensor in held)):08x}"


def main(run_name: str, steps: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 512), torch.nn.Dropout(0.1), torch.nn.Linear(512, 64))
    inner = torch.optim.AdamW(model.parameters())
    data = Position()
    state = pccl.TrainState(model=model, inner=inner, data=data)
    keep: dict[str, Any] = {"snapshots": pccl.Snapshots(run=run_name, every=2, orphan_s=60)}
    if folder:
        keep["checkpoints"] = pccl.Checkpointer(folder, every=5)
    with pccl.protect(state, **keep) as run:
        told = run.resumed_from["inner"]
        print("from", told.source, told.step, run.step, data.at, flush=True)
        while run.step < steps:
            generator = torch.Generator().manual_seed(data.at)
            data.at += 1
            model(torch.rand(16, 64, generator=generator)).square().mean().backward()
            inner.step()
            inner.zero_grad()
            print(run.step, digest(model, inner), flush=True)
    print("end", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
