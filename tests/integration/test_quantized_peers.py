"""Quantized averages of real peers: every dtype, rounding and shape of data; the same bits for survivors."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from pccl_py import Communicator, Master, QuantConfig
from tests.conftest import Spawn
from tests.quantized_data import DTYPES, LEVELS, SHAPES, mean_bound, sample
from tests.threads import in_threads

from .peers import PEER, QUICK, expect, together

CASES = [
    (kind, dtype, rounding, shape)
    for kind in sorted(LEVELS)
    for dtype in DTYPES
    for rounding in ("nearest", "stochastic")
    for shape in SHAPES
]


def values_of(case: int, rank: int, dtype: str) -> Any:
    return sample(CASES[case][3], 1000 * case + rank, 1 + 37 * case % 3000, dtype)


def reach(kind: str, values: Any) -> float:
    """R of all elements: blocks lie where chunks begin, so no smaller one is certain."""
    return float(np.ptp(values) if kind == "uint8" else 2 * np.abs(values).max())


@pytest.mark.deadline(120)
@pytest.mark.parametrize("peers", [1, 2, 5, 8])
def test_within_the_bound_and_equal_everywhere(master: Master, peers: int) -> None:
    cases = range(0, len(CASES), 1 if peers < 5 else 3)

    def play(comm: Communicator, index: int) -> Any:
        rank, results = comm.rank, []
        for case in cases:
            kind, dtype, rounding, _ = CASES[case]
            tensor = torch.from_numpy(values_of(case, rank, dtype)).to(getattr(torch, dtype))
            config = QuantConfig(kind, rounding=rounding)  # type: ignore[arg-type]
            comm.all_reduce(tensor, "avg", quantization=config)
            results.append(tensor)
        return results

    everywhere = together(master.address, peers, play, limit_s=110)
    for case, *outs in zip(cases, *everywhere, strict=True):
        kind, dtype, rounding, _ = CASES[case]
        inputs = [values_of(case, rank, dtype) for rank in range(peers)]
        got = np.asarray(outs[0].double().numpy())
        assert all(torch.equal(out, outs[0]) for out in outs), CASES[case]
        if peers == 1:
            assert np.array_equal(got, inputs[0]), "alone, nothing is quantized"
            continue
        ranges = np.full(len(got), max(reach(kind, values) for values in inputs))
        limit = mean_bound(kind, dtype, inputs, ranges, stochastic=rounding == "stochastic")
        assert np.all(np.abs(got - np.mean(inputs, axis=0)) <= limit), CASES[case]


def turn_values(peer: int, turn: int, count: int) -> Any:
    return np.random.default_rng(100_000 * peer + turn).standard_normal(count).astype(np.float32)


SURVIVE = """
from tests.integration.test_quantized_peers import turn_values
comm = Communicator(address, min_islands=4, config=config)
count, kind, rounding = int(sys.argv[2]), sys.argv[3], sys.argv[4]
say("in")
for turn in range(10**9):
    x = turn_values(comm.id, turn, count)
    comm.all_reduce(x, "avg", quantization=QuantConfig(kind, rounding=rounding))
"""


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize(
    ("kind", "count"), [("int8", 1 << 19), ("uint8", 3000), ("int4", 1 << 18), ("fp8", 70_001)]
)
def test_a_repetition_gives_survivors_the_same_bits(
    master: Master, spawn: Spawn, kind: Any, count: int, rounding: Any
) -> None:
    victim = spawn("-c", PEER + SURVIVE, master.address, str(count), kind, rounding)
    inside = threading.Event()

    def watch() -> None:
        expect(victim, "in")
        inside.set()

    def survive(index: int) -> Any:
        with Communicator(master.address, min_islands=4, config=QUICK) as comm:
            turn, after, deadline = 0, 0, time.monotonic() + 40
            rounds: list[tuple[Any, Any]] = []
            while after < 4 and time.monotonic() < deadline:
                out = turn_values(comm.id, turn, count)
                info = comm.all_reduce(out, "avg", quantization=QuantConfig(kind, rounding=rounding))
                rounds = [*rounds[-4:], (info.contributors, out)]
                inputs = [turn_values(peer, turn, count).astype(np.float64) for peer in info.contributors]
                ranges = np.full(count, max(reach(kind, values) for values in inputs))
                limit = mean_bound(kind, "float32", inputs, ranges, stochastic=rounding == "stochastic")
                assert np.all(np.abs(out - np.mean(inputs, axis=0)) <= limit)
                turn, after = turn + 1, after + (len(info.contributors) == 3)
                if index == 0 and inside.is_set():
                    victim.kill()
            return rounds

    first, *others = in_threads([*(partial(survive, index) for index in range(3)), watch])[:3]
    assert [len(contributors) for contributors, _ in first].count(3) == 4
    for other in others:
        for (contributors, out), (same, again) in zip(first, other, strict=True):
            assert contributors == same
            assert np.array_equal(out.view(np.uint8), again.view(np.uint8))
