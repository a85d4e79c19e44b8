"""A DiLoCo peer under `protect`, with checkpoints of its own: `python -m ... ADDRESS NAME FOLDER ...`"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

import pccl_py as pccl
from pccl_py import Communicator, Config
from pccl_py.optim import DiLoCo

from .diloco_peer import say

H, EVERY, SIZE = 4, 3, 2000


class Position:
    """In the data: which numbers this peer has drawn."""

    at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, saved: dict[str, int]) -> None:
        self.at = saved["at"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("name")
    parser.add_argument("folder")
    parser.add_argument("--windows", type=int, default=12, help="0: as the file `end` says")
    parser.add_argument("--founders", type=int, default=1)
    parser.add_argument("--die-at", type=int, default=-1, help="position in the data")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    weight = torch.nn.Parameter(torch.randn(SIZE))
    model = torch.nn.ParameterDict({"weight": weight})
    inner = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    config = Config(heartbeat_ms=100, heartbeats_missed_max=10)
    data = Position()
    with Communicator(options.address, min_islands=options.founders, config=config) as comm:
        outer = DiLoCo(comm, model, inner, sync_every=H)
        state = pccl.TrainState(model=model, inner=inner, outer=outer, data=data)
        saver = pccl.Checkpointer(f"{options.folder}/{options.name}", every=EVERY, keep=3)
        with pccl.protect(state, comm, checkpoints=saver) as run:
            told = {name: [part.source, part.step, part.why] for name, part in run.resumed_from.items()}
            say(
                "begins", told=told, at=data.at, step=run.step, momentum=momentum(inner),
                digest=outer.state_digest(),
                model=float(weight.detach().double().sum()), outer=outer.outer_step,
                theta=float(outer.outer_parameters()["weight"].double().sum()),
            )  # fmt: skip
            train(options, outer, weight, inner, data, saver)
        say("end", digest=outer.state_digest(), failed=saver.stats.failed, saves=saver.stats.saves)


def momentum(inner: torch.optim.Optimizer) -> float:
    states: list[Any] = list(inner.state.values())
    return float(states[0]["momentum_buffer"].double().sum()) if states else 0.0


def train(
    options: Any,
    outer: DiLoCo,
    weight: torch.nn.Parameter,
    inner: torch.optim.Optimizer,
    data: Position,
    saver: pccl.Checkpointer,
) -> None:
    saves = 0
    end = Path(options.folder) / "end"
    while True:
        if outer.windows >= (options.windows or (int(end.read_text()) if end.exists() else sys.maxsize)):
            return
        time.sleep(0.02)
        if data.at == options.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        data.at += 1
        weight.grad = weight.detach() - torch.randn(SIZE, generator=torch.Generator().manual_seed(data.at))
        inner.step()
        if outer.pending_steps == 0:
            say("window", number=outer.windows, digest=outer.state_digest())
        if data.at % EVERY == 0:
            saver.wait()
        if saver.stats.saves > saves:
            saves = saver.stats.saves
            assert saver.stats.last is not None
            say("saved", step=saver.stats.last.step, at=data.at, momentum=momentum(inner))


if __name__ == "__main__":
    main()
