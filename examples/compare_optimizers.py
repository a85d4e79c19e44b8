#!/usr/bin/env python3
"""Compares the DiLoCo family on a small GPT: loss at equal tokens, bytes sent per peer, seconds.

    python examples/compare_optimizers.py                   # a table, and compare_optimizers.png
    python examples/compare_optimizers.py --only diloco async --seeds 1 --steps 200

Four peers are threads of this process, each with its communicator; all begin from the same model, which was
trained alone for `--warm` steps. Bytes are compared with those of "data-parallel", which averages gradients
in each step. Each peer has its own passages, of the sources of Python's standard library.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

import pccl_py as pccl
from pccl_py.demo.data import Corpus, load
from pccl_py.demo.model import GPT, Shape
from pccl_py.optim import AsyncDiLoCo, DiLoCo, LocalSGD, StreamingDiLoCo

SHAPE = Shape(layers=2, heads=2, width=64, context=64)
BATCH = 8
PATIENT = pccl.Config(heartbeat_ms=1000, heartbeats_missed_max=60)  # all peers share this process
NESTEROV = partial(torch.optim.SGD, lr=0.7, momentum=0.9, nesterov=True)  # DiLoCo's default
Make = Callable[[Any, GPT, torch.optim.Optimizer, int], Any]


def member(kind: Any, **options: Any) -> Make:
    return lambda comm, model, inner, every: kind(comm, model, inner, sync_every=every, **options)


OPTIMIZERS: dict[str, Make | None] = {
    "data-parallel": None,
    "local_sgd": member(LocalSGD),
    "diloco": member(DiLoCo),
    "diloco int8": member(DiLoCo, quantization="int8"),
    "diloco int4": member(DiLoCo, quantization="int4"),
    "streaming": member(StreamingDiLoCo, num_fragments=4, outer_optimizer=NESTEROV),
    "streaming delay 5": member(
        StreamingDiLoCo, num_fragments=4, fragment_sync_delay=5, outer_optimizer=NESTEROV
    ),
    "async": member(AsyncDiLoCo),
    "async gap": member(AsyncDiLoCo, staleness="gap"),
    "async eager": member(AsyncDiLoCo, staleness="eager"),
    "async delayed_nesterov": member(AsyncDiLoCo, staleness="delayed_nesterov"),
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """Of one run: nats per byte of held-out text, bytes sent by a peer, seconds."""

    loss: float
    sent: int
    seconds: float


def gradients_together(comm: pccl.Communicator, model: GPT, inner: torch.optim.Optimizer) -> int:
    """One step of data-parallel training; returns the bytes that it sent."""
    info = comm.all_reduce([p.grad for p in model.parameters() if p.grad is not None], "avg")
    inner.step()
    return info.bytes_sent


def run_peer(
    address: str,
    rank: int,
    make: Make | None,
    options: argparse.Namespace,
    corpus: Corpus,
    start: Any,
    seed: int,
) -> Result:
    model = GPT(SHAPE)
    model.load_state_dict(start)
    inner = torch.optim.AdamW(model.parameters(), lr=options.lr)
    batches = corpus.batches(BATCH, SHAPE.context + 1, seed=1000 * seed + rank)
    with pccl.Communicator(address, min_islands=options.peers, config=PATIENT) as comm:
        outer = None if make is None else make(comm, model, inner, options.every).__enter__()
        began, sent = time.monotonic(), 0
        for _ in range(options.steps):
            inner.zero_grad()
            model.loss(next(batches)).backward()
            if outer is None:
                sent += gradients_together(comm, model, inner)
            else:
                inner.step()
        if outer is not None:
            outer.finalize()
            sent = outer.stats.bytes_sent
        seconds = time.monotonic() - began
    with torch.no_grad():
        loss = model.loss(corpus.held_out_batch(64, SHAPE.context + 1)).item()
    return Result(loss, sent, seconds)


def run(make: Make | None, options: argparse.Namespace, corpus: Corpus, start: Any, seed: int) -> Result:
    results: list[Result | None] = [None] * options.peers

    def peer(rank: int) -> None:
        results[rank] = run_peer(master.address, rank, make, options, corpus, start, seed)

    with pccl.Master(config=PATIENT) as master:
        threads = [threading.Thread(target=peer, args=(rank,)) for rank in range(options.peers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = [result for result in results if result is not None]
    if len(found) < options.peers or len({result.loss for result in found}) > 1:
        sys.exit("peers failed, or ended with different models")
    return found[0]


def warm(options: argparse.Namespace, corpus: Corpus) -> Any:
    """A model that was trained alone: from noise, a few steps decide everything."""
    model = GPT(SHAPE)
    inner = torch.optim.AdamW(model.parameters(), lr=options.lr)
    batches = corpus.batches(BATCH, SHAPE.context + 1, seed=99)
    for _ in range(options.warm):
        inner.zero_grad()
        model.loss(next(batches)).backward()
        inner.step()
    return model.state_dict()


def row(name: str, results: list[Result], base: int) -> str:
    losses = [result.loss for result in results]
    mean, spread = sum(losses) / len(losses), max(losses) - min(losses)
    sent, seconds = results[0].sent, sum(r.seconds for r in results) / len(results)
    less = f"{base / sent:8.1f}x" if sent else " " * 9
    return f"{name:24} {mean:8.4f} {spread:8.4f} {sent / 1e6:10.3f} {less} {seconds:8.1f}"


def plot(found: dict[str, list[Result]], path: str) -> None:
    try:
        import matplotlib
    except ImportError:
        print("no plot: it takes pip install -e '.[plot]'")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for name, results in found.items():
        mean = sum(result.loss for result in results) / len(results)
        axes.scatter(results[0].sent / 1e6, mean)
        axes.annotate(
            name, (results[0].sent / 1e6, mean), xytext=(5, 3), textcoords="offset points", fontsize=8
        )
    axes.set(xscale="log", xlabel="MB sent per peer", ylabel="held-out loss, nats per byte")
    axes.set_title("The same tokens, other traffic")
    figure.savefig(path, dpi=150)
    print(f"plot: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=600, help="inner steps of each peer")
    parser.add_argument("--every", type=int, default=50, help="inner steps in a window")
    parser.add_argument("--warm", type=int, default=150)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(OPTIMIZERS), default=list(OPTIMIZERS))
    parser.add_argument("--png", default="compare_optimizers.png")
    options = parser.parse_args()
    torch.set_num_threads(1)
    corpus = load([], SHAPE.context + 1)
    start = warm(options, corpus)
    found: dict[str, list[Result]] = {}
    size = sum(value.numel() for value in GPT(SHAPE).parameters())
    base = round(2 * (options.peers - 1) / options.peers * 4 * size * options.steps)  # data-parallel's
    print(f"{'optimizer':24} {'loss':>8} {'spread':>8} {'MB sent':>10} {'less':>9} {'seconds':>8}")
    for name in options.only:
        found[name] = [run(OPTIMIZERS[name], options, corpus, start, seed) for seed in range(options.seeds)]
        print(row(name, found[name], base), flush=True)
    plot(found, options.png)


if __name__ == "__main__":
    main()
