"""Quantized all-reduces: error bounds, the same bits everywhere, values that cannot be quantized, kills."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pccl_py import Communicator, Master, MismatchError, NonFiniteError, QuantConfig, UsageError
from pccl_py.quantization import KINDS
from tests.conftest import Spawn
from tests.quantized_data import LEVELS
from tests.threads import in_threads

from .peers import PEER, QUICK, expect, together

SHAPES = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "constant": lambda rng, n: np.full(n, rng.standard_normal()),
    "negative": lambda rng, n: -np.abs(rng.standard_normal(n)) - 3,
    "outlier": lambda rng, n: np.where(np.arange(n) == n // 3, 1e4, rng.standard_normal(n)),
    "denormal": lambda rng, n: rng.standard_normal(n) * 1e-41,
    "zeros": lambda rng, n: np.zeros(n),
}


def data(shape: str, rank: int, count: int) -> Any:
    return SHAPES[shape](np.random.default_rng(rank + 1), count).astype(np.float32)


def bound(kind: str, tensors: list[Any]) -> float:
    spread = [float(np.ptp(t)) if kind == "uint8" else 2 * float(np.abs(t).max()) for t in tensors if t.size]
    largest = max((float(np.abs(t).max()) for t in tensors if t.size), default=0.0)
    smallest = 1e-40 if kind in ("int4", "bf16") else 1e-44  # of scales, or values, in bfloat16 or float32
    return max(spread, default=0.0) / LEVELS[kind] + largest * 2**-20 + smallest


@pytest.mark.parametrize("peers", [1, 2, 3, 4])
def test_averages_are_within_the_bound_and_equal_everywhere(master: Master, peers: int) -> None:
    cases = [(kind, shape, count) for kind in KINDS for shape in SHAPES for count in (1, 7, 1000, 70_001)]

    def play(comm: Communicator, index: int) -> list[Any]:
        rank, results = comm.rank, []
        for kind, shape, count in cases:
            tensor = data(shape, rank, count)
            out = np.empty_like(tensor)
            comm.all_reduce(tensor, "avg", out=out, quantization=kind)
            assert np.array_equal(tensor, data(shape, rank, count)), "the input was changed"
            comm.all_reduce(tensor, "avg", quantization=kind)
            assert np.array_equal(tensor.view(np.uint8), out.view(np.uint8)), "in place is not the same"
            results.append(out)
        return results

    results = together(master.address, peers, play)
    for (kind, shape, count), *outs in zip(cases, *results, strict=True):
        inputs = [data(shape, rank, count) for rank in range(peers)]
        exact = np.mean([t.astype(np.float64) for t in inputs], axis=0)
        limit = 0.0 if peers == 1 else bound(kind, inputs)
        assert np.abs(outs[0] - exact).max() <= limit, (kind, shape, count)
        for out in outs:
            assert np.array_equal(out.view(np.uint8), outs[0].view(np.uint8)), (kind, shape, count)


def test_stochastic_rounding_is_unbiased_and_repeats(master: Master) -> None:
    config = QuantConfig("int8", rounding="stochastic")

    def play(comm: Communicator, index: int) -> Any:
        value = np.full(100_000, 0.3, np.float32)
        value[::256] = 1.0  # the quantum is 1/127: 0.3 lies between two codes
        comm.all_reduce(value, "avg", quantization=config)
        return value

    first, second = together(master.address, 2, play)
    assert np.array_equal(first, second)
    rest = np.delete(first, np.s_[::256])
    assert abs(rest.mean() - 0.3) < 1e-4
    assert np.abs(rest - 0.3).max() <= 2 / 127


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_dtypes_lists_and_weights(master: Master, dtype: str) -> None:
    kind = getattr(torch, dtype)

    def play(comm: Communicator, index: int) -> Any:
        rank = comm.rank  # now: when somebody has finished and left, it is another one
        generator = torch.Generator().manual_seed(rank)
        tensors = [torch.randn(n, generator=generator).to(kind) for n in (3000, 0, 17)]
        before = [t.clone() for t in tensors]
        comm.all_reduce(tensors, "avg", weight=float(rank), quantization="int8")
        return rank, before, tensors

    results = [made for _, *made in sorted(together(master.address, 3, play), key=lambda made: int(made[0]))]
    for i in range(3):
        inputs = [before[i].double() for before, _ in results]
        exact = (inputs[1] + 2 * inputs[2]) / 3
        for _, after in results:
            assert torch.equal(after[i], results[0][1][i])
        if exact.numel():
            off = float((results[0][1][i].double() - exact).abs().max())
            assert off <= 2 * max(float(t.abs().max()) for t in inputs) / 254 + 0.02


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", list(KINDS))
def test_what_cannot_be_quantized_fails_everywhere_with_a_name(
    master: Master, kind: str, value: float
) -> None:
    def play(comm: Communicator, index: int) -> None:
        tensor = np.ones(5000, np.float32)
        if comm.rank == 1:
            tensor[4321] = value
        before = tensor.copy()
        with pytest.raises(NonFiniteError, match=f"peer {comm.peers()[1].id} has values"):
            comm.all_reduce(tensor, quantization=kind)
        assert np.array_equal(tensor, before, equal_nan=True), "the input was changed"
        tensor = np.full(10, 2.0, np.float32)
        comm.all_reduce(tensor, quantization=kind)
        assert np.allclose(tensor, 6.0, rtol=0.01)

    together(master.address, 3, play)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(0, 5000),
    kind=st.sampled_from(sorted(KINDS)),
    block=st.sampled_from([32, 64, 256, 1024]),
    rounding=st.sampled_from(["nearest", "stochastic"]),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
)
def test_any_size_and_block(
    pair: list[Communicator], count: int, kind: Any, block: int, rounding: Any, scale: float
) -> None:
    inputs = [np.random.default_rng(i).standard_normal(count).astype(np.float32) * scale for i in range(2)]
    inputs = [t.astype(np.float32) for t in inputs]
    outs = [np.empty_like(t) for t in inputs]
    config = QuantConfig(kind, block, rounding)
    works = [
        comm.all_reduce(t, "avg", out=out, quantization=config, async_op=True)
        for comm, t, out in zip(pair, inputs, outs, strict=True)
    ]
    for work in works:
        work.wait(timeout=30)
    assert np.array_equal(outs[0], outs[1])
    if count:
        exact = np.mean([t.astype(np.float64) for t in inputs], axis=0)
        limit = bound(kind, inputs) * (2 if rounding == "stochastic" else 1)
        assert np.abs(outs[0] - exact).max() <= limit


@pytest.fixture(scope="module")
def pair() -> Iterator[list[Communicator]]:
    """Two members of one run, for one thread: their operations are asynchronous."""
    with Master(config=QUICK) as master:
        join = partial(Communicator, master.address, min_islands=2, config=QUICK)
        pair = in_threads([join, join])
        yield pair
        for comm in pair:
            comm.leave()


def test_wrong_arguments(master: Master) -> None:
    with Communicator(master.address, config=QUICK) as comm:
        tensor = np.ones(4, np.float32)
        for wrong in ("int3", 8, QuantConfig):
            with pytest.raises(UsageError, match="quantization"):
                comm.all_reduce(tensor, quantization=wrong)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="'sum' or 'avg'"):
            comm.all_reduce(tensor, "max", quantization="int8")
        with pytest.raises(UsageError, match="floating"):
            comm.all_reduce(np.ones(4, np.int32), quantization="int8")
    for block in (0, 31, 100, 2048, True, 64.0):
        with pytest.raises(UsageError, match="multiple of 32"):
            QuantConfig("int8", block)  # type: ignore[arg-type]


def test_peers_that_quantize_differently(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        with pytest.raises(MismatchError, match="int8 in blocks of 256.*|int4 in blocks of 64.*"):
            comm.all_reduce(np.ones(9, np.float32), quantization=["int8", "int4"][comm.rank])

    together(master.address, 2, play)


SURVIVE = """
comm = Communicator(address, min_islands=3, config=config)
say("in")
while True:
    comm.all_reduce(np.ones(int(sys.argv[2]), np.float32), quantization="int8")
"""


@pytest.mark.parametrize("count", [1000, 1 << 20])
def test_a_killed_peer_costs_one_repetition(master: Master, spawn: Spawn, count: int) -> None:
    victim = spawn("-c", PEER + SURVIVE, master.address, str(count))
    inside = threading.Event()

    def watch() -> None:
        expect(victim, "in")
        inside.set()

    def survive(index: int) -> int:
        with Communicator(master.address, min_islands=3, config=QUICK) as comm:
            after, deadline = 0, time.monotonic() + 40
            while after < 20 and time.monotonic() < deadline:
                tensor = np.ones(count, np.float32)
                info = comm.all_reduce(tensor, quantization="int8")
                assert np.allclose(tensor, len(info.contributors), rtol=0.01)
                assert np.all(tensor == tensor[0])
                after += len(info.contributors) == 2
                if index == 0 and inside.is_set():
                    victim.kill()
            return after

    assert in_threads([partial(survive, 0), partial(survive, 1), watch])[:2] == [20, 20]
