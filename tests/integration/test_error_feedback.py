"""Error feedback: what quantization loses comes later, whatever happens to the operations in between."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from pccl_py import (
    Cancelled,
    Communicator,
    ErrorFeedback,
    Master,
    NonFiniteError,
    OperationTimeout,
    QuantConfig,
    UsageError,
)
from pccl_py.quantization import KINDS
from tests.conftest import Spawn
from tests.threads import in_threads

from .peers import PEER, QUICK, expect, together


def tiny(rank: int, count: int = 1920) -> Any:
    """Constant, and far below the quantum of its blocks: each begins with a 1, whoever owns it."""
    values = np.full(count, 1e-3 * (rank + 1), np.float32)
    values[::64] = 1.0
    return values


def residual(feedback: ErrorFeedback, name: str = "g") -> Any:
    return np.concatenate([np.asarray(part, np.float64) for part in feedback.state_dict()[name]])


@pytest.mark.parametrize("peers", [2, 3, 5])
def test_a_tiny_gradient_arrives_with_feedback_alone(master: Master, peers: int) -> None:
    rounds = 400

    def play(comm: Communicator, index: int) -> Any:
        feedback, x = ErrorFeedback(), tiny(comm.rank)
        fed, plain, out = np.zeros(len(x)), np.zeros(len(x)), np.empty_like(x)
        halfway, given = fed, x.copy()
        for turn in range(rounds):
            comm.all_reduce(x, "avg", out=out, quantization="int4", error_feedback=feedback["g"])
            fed += out
            comm.all_reduce(x, "avg", out=out, quantization="int4")
            plain += out
            if turn + 1 == rounds // 2:
                halfway = fed.copy()
        assert np.array_equal(x, given), "the input was changed"
        return x, halfway, fed, plain, residual(feedback)

    results = together(master.address, peers, play)
    mean = np.mean([made[0] for made in results], axis=0, dtype=np.float64)
    _, halfway, fed, plain, _ = results[0]
    rest = np.arange(len(mean)) % 64 != 0
    assert np.all(plain[rest] == 0), "without feedback nothing of it ever arrives"
    # Off by one quantum (1/7) of a contribution and one of the sum, halves each; not more after more rounds.
    assert np.abs(halfway - mean * (rounds // 2)).max() <= 1 / 7 + 1e-4
    assert np.abs(fed - mean * rounds).max() <= 1 / 7 + 1e-4
    left = np.mean([made[4] for made in results], axis=0)
    assert np.abs(fed + left - mean * rounds).max() < 1e-4, "what did not arrive is in the residuals"
    for made in results:
        assert np.array_equal(made[2], fed)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("op", ["sum", "avg"])
def test_nothing_is_lost(master: Master, kind: Any, rounding: Any, op: Any) -> None:
    """The residual is computed from what was sent, bit for bit: results and residuals add up."""
    code = QuantConfig(kind, rounding=rounding)

    def play(comm: Communicator, index: int) -> Any:
        rng = np.random.default_rng(comm.rank)
        feedback = ErrorFeedback()
        given, got = np.zeros(5019), np.zeros(5019)
        for _ in range(5):
            tensors = [rng.standard_normal(n).astype(np.float32) for n in (5000, 0, 19)]
            given += np.concatenate(tensors)
            comm.all_reduce(tensors, op, quantization=code, error_feedback=feedback["g"])
            got += np.concatenate(tensors)
        return given, got, residual(feedback)

    results = together(master.address, 3, play)
    combine = np.sum if op == "sum" else np.mean
    exact = combine([made[0] for made in results], axis=0)
    left = combine([made[2] for made in results], axis=0)
    assert np.abs(left).max() > 0
    assert np.abs(results[0][1] + left - exact).max() < 2e-5
    assert all(np.array_equal(made[1], results[0][1]) for made in results)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_dtypes_of_torch(master: Master, dtype: str) -> None:
    """Also what 16-bit results round away is fed back."""
    kind, rounds = getattr(torch, dtype), 60

    def play(comm: Communicator, index: int) -> Any:
        feedback = ErrorFeedback()
        x = torch.linspace(0.1, 1.7, 777).to(kind) * (comm.rank + 1)
        total = torch.zeros(777, dtype=torch.float64)
        for _ in range(rounds):
            out = torch.empty_like(x)
            comm.all_reduce(x, "avg", out=out, quantization="int8", error_feedback=feedback["w"])
            total += out
        (left,) = feedback.state_dict()["w"]
        assert left.dtype == (torch.float64 if dtype == "float64" else torch.float32)
        return x.double(), total, left.double()

    results = together(master.address, 2, play)
    exact = sum(made[0] for made in results) / 2 * rounds
    left = sum(made[2] for made in results) / 2
    assert float((results[0][1] + left - exact).abs().max()) < (1e-10 if dtype == "float64" else 1e-4)


def test_weights(master: Master) -> None:
    """Constant weights: nothing is lost. Weight 0: the residual stays."""

    def play(comm: Communicator, index: int) -> Any:
        feedback, rank, x = ErrorFeedback(), comm.rank, tiny(comm.rank)
        total, weight = np.zeros(len(x)), float(rank + 1)
        for _ in range(50):
            out = x.copy()
            comm.all_reduce(out, "avg", weight=weight, quantization="int4", error_feedback=feedback["g"])
            total += out
        before = residual(feedback)
        weight_now = float(rank != 1)
        comm.all_reduce(x.copy(), "avg", weight=weight_now, quantization="int4", error_feedback=feedback["g"])
        assert np.array_equal(residual(feedback), before) == (rank == 1)
        return weight, x, total, before

    results = together(master.address, 3, play)
    weights = [made[0] for made in results]
    exact = np.average([made[1] for made in results], axis=0, weights=weights) * 50
    left = np.average([made[3] for made in results], axis=0, weights=weights)
    assert np.abs(results[0][2] + left - exact).max() < 1e-4


def test_alone_it_stays_as_it_is(master: Master) -> None:
    with Communicator(master.address, config=QUICK) as comm:
        feedback = ErrorFeedback()
        feedback.load_state_dict({"g": [np.full(3, 0.25, np.float32)]})
        x = np.ones(3, np.float32)
        comm.all_reduce(x, "avg", quantization="int4", error_feedback=feedback["g"])
        assert np.array_equal(x, np.ones(3))
        assert np.array_equal(feedback.state_dict()["g"][0], np.full(3, 0.25))


def test_an_operation_that_fails_leaves_it(master: Master) -> None:
    """Timeouts, cancellations and values that cannot be quantized; then the next one uses it."""

    def play(comm: Communicator, index: int) -> None:
        feedback, x = ErrorFeedback(), tiny(comm.rank)
        reduce = partial(comm.all_reduce, quantization="int4", error_feedback=feedback["g"])
        reduce(x.copy(), "avg")
        before = residual(feedback)
        assert np.abs(before).max() > 0
        bad = x.copy()
        bad[5] = np.nan if comm.rank == 0 else 0
        with pytest.raises(NonFiniteError):
            reduce(bad, "avg")
        assert np.array_equal(residual(feedback), before)
        work = reduce(x.copy(), "avg", tag=comm.rank, async_op=True)  # nobody else has this tag
        for use in (partial(reduce, x), feedback.state_dict, feedback.reset):
            with pytest.raises(UsageError, match="'g' still runs: wait"):
                use()
        work.cancel()
        with pytest.raises(Cancelled):
            work.wait()
        assert np.array_equal(residual(feedback), before)
        with pytest.raises(OperationTimeout):
            reduce(x.copy(), "avg", tag=10 + comm.rank, timeout=0.2)
        assert np.array_equal(residual(feedback), before)
        work = reduce(x.copy(), "avg", async_op=True)
        work.wait()
        assert not np.array_equal(residual(feedback), before)

    together(master.address, 2, play)


def test_decay_reset_and_saving(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        plain, decayed, x = ErrorFeedback(), ErrorFeedback(decay=0.5), tiny(comm.rank)
        for feedback in (plain, decayed):
            comm.all_reduce(x.copy(), "avg", quantization="int4", error_feedback=feedback["g"])
        assert np.array_equal(residual(decayed), residual(plain) / 2)
        saved = plain.state_dict()
        again = ErrorFeedback()
        again.load_state_dict(saved)
        outs = []
        for feedback in (plain, again):
            outs.append(x.copy())
            comm.all_reduce(outs[-1], "avg", quantization="int4", error_feedback=feedback["g"])
        assert np.array_equal(outs[0], outs[1])
        assert np.array_equal(residual(plain), residual(again))
        assert list(plain) == ["g"] and len(plain) == 1
        plain.reset()
        assert len(plain) == 0
        comm.all_reduce(np.ones(3), "avg", quantization="int4", error_feedback=plain["g"])  # of another shape

    together(master.address, 2, play)


SURVIVE = """
comm = Communicator(address, min_islands=3, config=config)
feedback = ErrorFeedback()
say("in")
while True:
    x = np.linspace(-1, 3, int(sys.argv[2]), dtype=np.float32)
    comm.all_reduce(x, "avg", quantization="int4", error_feedback=feedback["g"])
"""


@pytest.mark.parametrize("count", [1000, 1 << 19])
def test_a_repetition_among_survivors_begins_with_the_same_residual(
    master: Master, spawn: Spawn, count: int
) -> None:
    victim = spawn("-c", PEER + SURVIVE, master.address, str(count))
    inside = threading.Event()

    def watch() -> None:
        expect(victim, "in")
        inside.set()

    def survive(index: int) -> Any:
        with Communicator(master.address, min_islands=3, config=QUICK) as comm:
            feedback, x = ErrorFeedback(), np.linspace(0, index + 1, count, dtype=np.float32)
            rounds: list[Any] = []
            left, deadline = np.zeros(count), time.monotonic() + 40
            while sum(len(info.contributors) == 2 for info, *_ in rounds) < 5 and time.monotonic() < deadline:
                out = x.copy()
                info = comm.all_reduce(out, "avg", quantization="int4", error_feedback=feedback["g"])
                before, left = left, residual(feedback)
                rounds = [*rounds[-9:], (info, out, x + before - left)]
                if index == 0 and inside.is_set():
                    victim.kill()
            return rounds

    ours, theirs = in_threads([partial(survive, 0), partial(survive, 1), watch])[:2]
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if len(a[0].contributors) == 2]
    assert len(pairs) == 5
    assert pairs[0][0][0].attempts >= 1
    for (_, out, moved), (_, same, other) in pairs:
        assert np.array_equal(out, same)
        assert np.abs(out - (moved + other) / 2).max() < 1e-5
