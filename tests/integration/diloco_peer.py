"""A peer that trains with DiLoCo in a process: `python -m tests.integration.diloco_peer ADDRESS NAME ...`

Its training is a pull towards a target of its own, so that a few lines of numpy can predict every window.
It writes one JSON object per line; `--wait` lets it connect only when it is told to on its standard input.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from typing import Any

import numpy as np
import torch

from pccl_py import Communicator, Config
from pccl_py.optim import DiLoCo

H = 4
PULL = 0.1


def start(size: int) -> np.ndarray[Any, Any]:
    return np.linspace(-1, 1, size)


def target(name: str, size: int) -> np.ndarray[Any, Any]:
    """What the peer with this name learns."""
    return np.cos(np.arange(size) * (1 + ord(name)))


def say(event: str, **values: Any) -> None:
    line = json.dumps({"event": event, **values}) + "\n"
    print(line, end="", flush=True)  # in one write: lines of the log come between two


class Dying(Communicator):
    """Is killed inside the reduction of window `window`, `delay_s` after it was posted."""

    window = -1
    delay_s = 0.0
    calls = 0

    def all_reduce(self, *tensors: Any, **options: Any) -> Any:
        if self.calls == self.window:
            threading.Timer(self.delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()
            super().all_reduce(*tensors, **options)
            time.sleep(60)
        self.calls += 1
        return super().all_reduce(*tensors, **options)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("name")
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--windows", type=int, default=12)
    parser.add_argument("--founders", type=int, default=1)
    parser.add_argument("--pace", type=float, default=0.02, help="seconds per inner step")
    parser.add_argument("--die-in-window", type=int, default=-1)
    parser.add_argument("--die-in-reduction", type=int, default=-1)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--wait", action="store_true")
    options = parser.parse_args()
    Dying.window, Dying.delay_s = options.die_in_reduction, options.delay

    torch.set_num_threads(1)
    weight = torch.nn.Parameter(torch.from_numpy(start(options.size)).float())
    model = torch.nn.ParameterDict({"weight": weight})
    inner = torch.optim.SGD(model.parameters(), lr=PULL)
    aim = torch.from_numpy(target(options.name, options.size)).float()
    say("ready")
    if options.wait:
        sys.stdin.readline()
    config = Config(heartbeat_ms=100, heartbeats_missed_max=10)
    with Dying(options.address, min_islands=options.founders, config=config) as comm:
        say("member", id=comm.id, name=options.name)
        outer = DiLoCo(comm, model, inner, sync_every=H)
        with outer:
            say("begins", window=outer.windows, digest=outer.state_digest())
            train(outer, comm, weight, inner, aim, options)
        final = outer.outer_parameters()["weight"]
        say("end", theta=final[:50].tolist(), stats={"rejoins": outer.stats.rejoins}, inner=outer.inner_step)


def train(
    outer: DiLoCo,
    comm: Communicator,
    weight: torch.nn.Parameter,
    inner: torch.optim.Optimizer,
    aim: torch.Tensor,
    options: Any,
) -> None:
    rejoins = 0
    while outer.windows < options.windows:
        time.sleep(options.pace)
        if (outer.windows, outer.pending_steps) == (options.die_in_window, H // 2):
            os.kill(os.getpid(), signal.SIGKILL)
        weight.grad = weight.detach() - aim
        inner.step()
        if outer.pending_steps:
            continue
        if outer.stats.rejoins > rejoins:
            rejoins = outer.stats.rejoins
            say("member", id=comm.id, name=options.name)
            say("begins", window=outer.windows, digest=outer.state_digest())
            continue
        last = outer.stats.last
        assert last is not None
        say(
            "window", number=last.number, digest=outer.state_digest(), contributors=last.contributors,
            weight=last.weight, attempts=last.attempts,
        )  # fmt: skip


if __name__ == "__main__":
    main()
