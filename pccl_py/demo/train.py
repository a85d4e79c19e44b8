"""One peer of the demonstration. `train` is what a training script of one's own looks like."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import pccl_py as pccl
from pccl_py.optim import AsyncDiLoCo, DiLoCo, LocalSGD, StreamingDiLoCo
from pccl_py.optim.engine import Engine

from .data import load
from .model import GPT, Shape
from .options import Options

HELD_OUT_PASSAGES = 24
SLOWER_S = 0.02  # of each peer after the first, per step, where peers are to differ
Say = Callable[..., None]


def train(options: Options, say: Say, connect_when: Callable[[], None]) -> None:
    """Until the run has committed `options.windows` windows. `say(event, **values)` tells what happens."""
    torch.set_num_threads(options.threads)
    length = options.context + 1
    corpus = load(options.text, length)
    held_out = corpus.held_out_batch(HELD_OUT_PASSAGES, length)
    model = GPT(Shape(options.layers, options.heads, options.width, options.context))
    inner = torch.optim.AdamW(model.parameters(), lr=options.lr, betas=(0.9, 0.95))
    shared = GPT(model.shape)  # holds the outer parameters
    say("ready", parameters=model.size, corpus=corpus.digest, bytes=len(corpus.train))
    connect_when()

    assert options.master is not None
    with pccl.Communicator(
        options.master,
        secret_file=options.secret_file,
        insecure=options.insecure,
        min_islands=options.founders,
    ) as comm:
        say("member", id=comm.id, peers=comm.world_size)
        sampler = sampler_of(options, corpus.passages(length))
        outer = outer_of(comm, model, inner, options, sampler)
        pause_s = SLOWER_S * comm.rank if options.heterogeneous else 0.0
        batches = corpus.batches(options.batch, length, seed=comm.id)
        outer.leave_on(signal.SIGTERM)  # what a preempted machine gets
        with outer:
            say("begins", window=outer.windows, digest=outer.state_digest())
            losses = Losses(outer)
            losses.share()
            while outer.windows < options.windows and not outer.should_leave:
                set_learning_rate(inner, options, outer.inner_step + outer.pending_steps)
                batch = next(batches) if sampler is None else corpus.batch_of(outer.share(), length)
                loss = torch.zeros(())
                if len(batch):  # who came while averages travel has none yet
                    loss = model.loss(batch)
                    loss.backward()  # type: ignore[no-untyped-call]
                losses.add(loss.item(), len(batch))
                outer.add_tokens(len(batch) * options.context)
                before = outer.windows, outer.stats.synchronizations
                inner.step()  # its hook closes the window when this was the last step of it
                losses.share()
                inner.zero_grad()
                time.sleep(pause_s)
                say("step", window=outer.windows, step=outer.pending_steps, loss=loss.item())
                if before != (outer.windows, outer.stats.synchronizations):
                    shared.load_state_dict(outer.outer_parameters())
                    tell_window(outer, say, evaluate(shared, held_out), losses.last)
        stats = outer.stats
        say("end", sent=stats.bytes_sent, state_sent=stats.state_bytes_sent, rejoins=stats.rejoins)


class Losses:
    """last: the mean of all peers' in the last window, weighted by passages. share() at the start, and behind
    each step."""

    def __init__(self, outer: Engine) -> None:
        self._outer, self._window = outer, -1
        self._sum, self._count, self.last = 0.0, 0, 0.0

    def add(self, loss: float, passages: int) -> None:
        self._sum += loss * passages
        self._count += passages

    def share(self) -> None:
        if self._window == self._outer.windows:
            return
        self._window = self._outer.windows
        self.last = self._outer.mean(self._sum / max(1, self._count), self._count)
        self._sum, self._count = 0.0, 0


def sampler_of(options: Options, passages: int) -> pccl.parallel.ElasticSampler | None:
    """One order for all peers, whoever is there; None where each draws its own passages."""
    if not options.window_samples:
        return None
    overlapping = options.optimizer == "async" or (options.optimizer == "streaming" and options.steps > 1)
    return pccl.parallel.ElasticSampler(
        passages, global_batch=options.window_samples, overlapping=overlapping
    )


def outer_of(
    comm: pccl.Communicator,
    model: GPT,
    inner: torch.optim.Optimizer,
    options: Options,
    sampler: pccl.parallel.ElasticSampler | None = None,
) -> Engine:
    """The chosen member of the family. Streaming: two fragments, which travel while the peer trains."""
    common: Any = {"sync_every": options.steps, "sampler": sampler}
    if options.quantization != "none":
        common["quantization"] = options.quantization
    if options.heterogeneous:
        common["local_steps"] = "dynamic"
    match options.optimizer:
        case "local_sgd":
            return LocalSGD(comm, model, inner, **common)
        case "async":
            return AsyncDiLoCo(comm, model, inner, staleness="gap", **common)
    if options.outer_lr is not None:
        momentum = options.outer_momentum
        common["outer_optimizer"] = partial(
            torch.optim.SGD, lr=options.outer_lr, momentum=momentum, nesterov=momentum > 0
        )
    if options.optimizer == "streaming":
        common["sync_every"] = 2 * options.steps  # one of the two leaves at the end of each window
        delay = min(5, options.steps - 1)
        return StreamingDiLoCo(comm, model, inner, num_fragments=2, fragment_sync_delay=delay, **common)
    return DiLoCo(comm, model, inner, **common)


def set_learning_rate(inner: torch.optim.Optimizer, options: Options, step: int) -> None:
    """Warm-up and cosine by the run's own count of steps, which a joiner shares."""
    total = options.windows * options.steps
    warm = max(1, total // 20)
    rate = min(1.0, (step + 1) / warm) * (0.55 + 0.45 * math.cos(math.pi * min(1.0, step / total)))
    for group in inner.param_groups:
        group["lr"] = options.lr * rate


@torch.no_grad()
def evaluate(model: GPT, held_out: torch.Tensor) -> float:
    """Nats per byte. The model is the outer one, so that all peers find the same value."""
    model.eval()
    loss = model.loss(held_out).item()
    model.train()
    return loss


def tell_window(outer: Engine, say: Say, loss: float, trained: float) -> None:
    last = outer.stats.last
    if last is None or last.number != outer.windows:  # evicted, and back with the shared state
        return say("begins", window=outer.windows, digest=outer.state_digest())
    say(
        "window",
        number=outer.windows,
        held_out=loss,
        trained=trained,
        digest=outer.state_digest(),
        contributors=last.contributors,
        attempts=last.attempts,
        wait_s=last.wait_s,
        committed_at=last.committed_at,
        sent=outer.stats.bytes_sent,
        state_sent=outer.stats.state_bytes_sent,
        tokens=outer.tokens,
    )
