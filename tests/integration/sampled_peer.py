"""A peer of the DiLoCo family whose windows are batches of an ElasticSampler, in a process:
`python -m tests.integration.sampled_peer ADDRESS NAME KIND ...`, where KIND is a key of KINDS.

The target of a sample is a number of its own, so that a few lines of numpy predict every window. After each
one, and once at the start, all peers call mean().
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from typing import Any

import torch

from pccl_py import Communicator, Config
from pccl_py.optim import AsyncDiLoCo, DiLoCo, StreamingDiLoCo
from pccl_py.parallel import ElasticSampler

from .diloco_peer import PULL, say

SAMPLES, BATCH, STEPS, WIDTH, EPOCHS = 360, 48, 4, 6, 3
LAST_OF_THE_DEAD = 8  # windows
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "diloco": (DiLoCo, {}),
    "fragments": (StreamingDiLoCo, {"num_fragments": 2, "sync_every": 2 * STEPS}),
    "streaming": (
        StreamingDiLoCo,
        {"num_fragments": 2, "sync_every": 2 * STEPS, "fragment_sync_delay": 1},
    ),
    "async": (AsyncDiLoCo, {}),
}
OVERLAP = ("streaming", "async")


def targets() -> torch.Tensor:
    """float64 [SAMPLES, WIDTH]"""
    return torch.cos(torch.arange(SAMPLES * WIDTH, dtype=torch.float64).view(SAMPLES, WIDTH))


class Dying(Communicator):
    """Is killed behind the commit of an average, which counts."""

    armed = False

    def all_reduce(self, tensors: Any, *arguments: Any, **options: Any) -> Any:
        other = not self.armed or options.get("on_loss") != "retry" or tensors[0].dtype == torch.float64
        if other:  # the counts, too
            return super().all_reduce(tensors, *arguments, **options)
        options.pop("async_op", None)
        super().all_reduce(tensors, *arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("name")
    parser.add_argument("kind")
    parser.add_argument("--founders", type=int, default=1)
    parser.add_argument("--die-in-window", type=int, default=-1)
    parser.add_argument("--die-in-commit", type=int, default=-1)
    parser.add_argument("--pace", type=float, default=0.01)
    parser.add_argument("--wait", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = torch.nn.ParameterDict({key: torch.nn.Parameter(torch.zeros(WIDTH // 2)) for key in "ab"})
    inner = torch.optim.SGD(model.parameters(), lr=PULL)
    sampler = ElasticSampler(SAMPLES, global_batch=BATCH, seed=3, overlapping=options.kind in OVERLAP)
    kind, settings = KINDS[options.kind]
    say("ready")
    if options.wait:
        sys.stdin.readline()
    config = Config(heartbeat_ms=100, heartbeats_missed_max=100)
    with Dying(options.address, min_islands=options.founders, config=config) as comm:
        say("member", id=comm.id, name=options.name)
        with kind(comm, model, inner, **{"sync_every": STEPS, "sampler": sampler, **settings}) as outer:
            say("begins", window=outer.windows, digest=outer.state_digest())
            train(comm, outer, model, inner, sampler, options)
            say("end", state=sampler.state.tolist(), step=sampler.step, digest=outer.state_digest())


def train(comm: Dying, outer: Any, model: Any, inner: Any, sampler: ElasticSampler, options: Any) -> None:
    aims, told, losses, together = targets(), -1, list[float](), 0
    while True:
        if outer.windows != told:
            told = outer.windows
            value = sum(losses) / max(1, len(losses))
            mean = outer.mean(value, len(losses))
            say("metric", window=told, value=value, weight=len(losses), mean=mean)
            losses = []
        if sampler.epoch >= EPOCHS and together >= 4:  # the same on all peers; the newcomer has been there
            return
        time.sleep(options.pace)
        window, step = outer._window_in_training, outer.pending_steps
        if (window, step) == (options.die_in_window, STEPS // 2):
            os.kill(os.getpid(), signal.SIGKILL)
        comm.armed = outer.windows == options.die_in_commit
        share = outer.share()
        say("step", window=window, step=step, share=share)
        inner.zero_grad()
        if share:
            aim = aims[share].mean(0).float()
            parameters = torch.cat([p.detach() for p in model.values()])
            losses += (aims[share] - parameters).square().mean(1).tolist()
            for p, part in zip(model.values(), (parameters - aim).split(WIDTH // 2), strict=True):
                p.grad = part
        inner.step()
        last = outer.stats.last
        if outer.windows != told and last is not None and last.number == outer.windows:
            together += last.number > LAST_OF_THE_DEAD and len(last.contributors) == 3
            theta = torch.cat([p.reshape(-1) for p in outer.outer_parameters().values()])
            say(
                "window", number=last.number, digest=outer.state_digest(), weight=last.weight,
                contributors=last.contributors, theta=theta.tolist(), own=outer._own.weight,
            )  # fmt: skip


if __name__ == "__main__":
    main()
