"""One peer of the demonstration. `train` is what a training script of one's own looks like."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import pccl_py as pccl
from pccl_py.optim import DiLoCo

from .data import load
from .model import GPT, Shape
from .options import Options

HELD_OUT_PASSAGES = 24
Say = Callable[..., None]


def train(options: Options, say: Say, connect_when: Callable[[], None]) -> None:
    """Until the run has committed `options.windows` windows. `say(event, **values)` tells what happens."""
    torch.set_num_threads(options.threads)
    length = options.context + 1
    corpus = load(options.text, length)
    held_out = corpus.held_out_batch(HELD_OUT_PASSAGES, length)
    model = GPT(Shape(options.layers, options.heads, options.width, options.context))
    inner = torch.optim.AdamW(model.parameters(), lr=options.lr, betas=(0.9, 0.95))
    outer_optimizer = partial(
        torch.optim.SGD,
        lr=options.outer_lr,
        momentum=options.outer_momentum,
        nesterov=options.outer_momentum > 0,
    )
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
        outer = DiLoCo(comm, model, inner, sync_every=options.steps, outer_optimizer=outer_optimizer)
        batches = corpus.batches(options.batch, length, seed=comm.id)
        with outer:
            say("begins", window=outer.windows, digest=outer.state_digest())
            while outer.windows < options.windows:
                set_learning_rate(inner, options, outer.inner_step + outer.pending_steps)
                loss = model.loss(next(batches))
                loss.backward()  # type: ignore[no-untyped-call]
                outer.add_tokens(options.batch * options.context)
                inner.step()  # its hook closes the window when this was the last step of it
                inner.zero_grad()
                say("step", window=outer.windows, step=outer.pending_steps, loss=loss.item())
                if outer.pending_steps == 0:
                    tell_window(outer, say, evaluate(model, held_out))
        stats = outer.stats
        say("end", sent=stats.bytes_sent, state_sent=stats.state_bytes_sent, rejoins=stats.rejoins)


def set_learning_rate(inner: torch.optim.Optimizer, options: Options, step: int) -> None:
    """Warm-up and cosine by the run's own count of steps, which a joiner shares."""
    total = options.windows * options.steps
    warm = max(1, total // 20)
    rate = min(1.0, (step + 1) / warm) * (0.55 + 0.45 * math.cos(math.pi * min(1.0, step / total)))
    for group in inner.param_groups:
        group["lr"] = options.lr * rate


@torch.no_grad()
def evaluate(model: GPT, held_out: torch.Tensor) -> float:
    """Nats per byte. The model is the outer one here, so that all peers find the same value."""
    model.eval()
    loss = model.loss(held_out).item()
    model.train()
    return loss


def tell_window(outer: DiLoCo, say: Say, loss: float) -> None:
    last = outer.stats.last
    if last is None or last.number != outer.windows:  # evicted, and back with the shared state
        return say("begins", window=outer.windows, digest=outer.state_digest())
    say(
        "window",
        number=outer.windows,
        held_out=loss,
        digest=outer.state_digest(),
        contributors=last.contributors,
        attempts=last.attempts,
        wait_s=last.wait_s,
        committed_at=last.committed_at,
        sent=outer.stats.bytes_sent,
        state_sent=outer.stats.state_bytes_sent,
        tokens=outer.tokens,
    )


# ---- a process around it -----------------------------------------------------------------------------------


def run_peer(options: Options) -> int:
    """Trains, and writes what happens to standard output."""
    say = partial(_as_json if options.json else _as_text, options)
    news = _News(say)
    logging.getLogger("pccl_py").addHandler(news)
    logging.getLogger("pccl_py").setLevel(logging.INFO)
    connect_when: Callable[[], None] = _when_told if options.held else lambda: None
    try:
        train(options, say, connect_when)
    except KeyboardInterrupt:
        return 130
    return 0


class _News(logging.Handler):
    """Tells at once, from a thread of the library, that somebody came, went or is waited for."""

    def __init__(self, say: Say) -> None:
        super().__init__(logging.INFO)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say("news", text=record.getMessage())


_writing = threading.Lock()


def _as_json(options: Options, event: str, **values: Any) -> None:
    line = json.dumps({"event": event, "t": time.monotonic(), **values})
    with _writing:
        print(line, flush=True)


def _as_text(options: Options, event: str, **values: Any) -> None:
    if event == "step" and values["step"] % 10:
        return
    shown = " ".join(f"{key}={_short(value)}" for key, value in values.items())
    with _writing:
        print(f"{time.strftime('%H:%M:%S')} {options.name} {event}: {shown}", flush=True)


def _short(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _when_told() -> None:
    """Returns after a line on standard input; when it is closed later, nobody needs this process any more."""
    if not sys.stdin.readline():
        os._exit(1)
    threading.Thread(target=_end_with_stdin, daemon=True).start()


def _end_with_stdin() -> None:
    while sys.stdin.readline():
        pass
    os._exit(1)
