"""Peers whose values are not finite, left out of an average: all alike, by name, also while others die."""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from pccl_py import (
    Communicator,
    ErrorFeedback,
    Master,
    MismatchError,
    NonFiniteError,
    QuantConfig,
    UsageError,
)
from pccl_py.quantization import KINDS
from tests.conftest import Spawn
from tests.threads import in_threads

from .peers import PEER, QUICK, expect, together

BAD = (np.nan, np.inf, -np.inf)


def skipping(kind: Any = "int8", **options: Any) -> QuantConfig:
    return QuantConfig(kind, non_finite="skip", **options)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_its_weight_becomes_zero_on_all_peers(
    master: Master, kind: Any, bad: float, caplog: pytest.LogCaptureFixture
) -> None:
    def play(comm: Communicator, index: int) -> Any:
        ids, rank, results = [peer.id for peer in comm.peers()], comm.rank, []
        for culprits in ((0,), (1,), (2,), (0, 2)):
            for place in (0, 1234, 2999):  # in the segment of each owner
                tensor = np.full(3000, rank + 1.0, np.float32)
                if rank in culprits:
                    tensor[place] = bad
                given, out = tensor.copy(), np.empty_like(tensor)
                info = comm.all_reduce(tensor, "avg", out=out, quantization=skipping(kind))
                assert np.array_equal(tensor, given, equal_nan=True), "the input was changed"
                comm.all_reduce(tensor, "avg", quantization=skipping(kind))
                assert np.array_equal(tensor, out), "in place is not the same"
                assert info.skipped == tuple(ids[c] for c in culprits)
                assert info.contributors == tuple(i for i in ids if i not in info.skipped)
                assert info.weight is None
                results.append((culprits, out))
        return results

    with caplog.at_level(logging.WARNING, "pccl_py"):
        everywhere = together(master.address, 3, play)
        until = time.monotonic() + 20  # lines come on a thread of their own
        while len(caplog.records) < 3 * 4 and time.monotonic() < until:
            time.sleep(0.01)
    for (culprits, out), *others in zip(*everywhere, strict=True):
        mean = np.mean([rank + 1.0 for rank in range(3) if rank not in culprits])
        assert np.abs(out - mean).max() <= 0.02 * mean
        assert all(np.array_equal(out, same) for _, same in others)
    assert any("peer 1 was skipped in call 0" in record.message for record in caplog.records)
    assert len(caplog.records) == 3 * 4, "told once, while it is the same peers"


def test_weights_lists_and_dtypes(master: Master) -> None:
    def play(comm: Communicator, index: int) -> Any:
        rank = comm.rank
        results = []
        for dtype in (torch.float16, torch.bfloat16, torch.float64):
            tensors = [torch.full((n,), rank + 1.0, dtype=dtype) for n in (700, 0, 3)]
            if rank == 1:
                tensors[2][1] = float("nan")
            info = comm.all_reduce(tensors, "avg", weight=rank + 1.0, quantization=skipping("uint8"))
            assert isinstance(info, object) and info.weight == 1 + 3
            results.append(torch.cat(tensors).double())
        zero = np.full(5, np.nan if rank == 0 else 1.0)
        info = comm.all_reduce(zero, "avg", weight=0.0, quantization=skipping())
        assert np.array_equal(zero, np.zeros(5)), "some are skipped, the others weigh nothing"
        assert info.weight == 0 and len(info.skipped) == 1
        return torch.cat(results)

    results = together(master.address, 3, play)
    assert float((results[0] - (1 + 9) / 4).abs().max()) < 0.01
    assert all(torch.equal(results[0], other) for other in results)


def test_what_bf16_cannot_hold_is_skipped_too(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        value = np.full(100, 1e300 if comm.rank == 0 else 2.0)
        info = comm.all_reduce(value, "avg", quantization=skipping("bf16"))
        assert len(info.skipped) == 1
        assert np.array_equal(value, np.full(100, 2.0))

    together(master.address, 2, play)


@pytest.mark.parametrize("peers", [1, 2, 3])
def test_if_nobody_is_left_all_are_told(master: Master, peers: int) -> None:
    def play(comm: Communicator, index: int) -> None:
        for count in (1, 5000):
            tensor = np.full(count, np.inf, np.float32)
            with pytest.raises(NonFiniteError, match=r"nobody is left to average in call .*\((\d, )*\d\)"):
                comm.all_reduce(tensor, "avg", quantization=skipping())
            assert np.all(tensor == np.inf), "the input was changed"
            tensor[:] = 3
            info = comm.all_reduce(tensor, "avg", quantization=skipping())
            assert info.skipped == ()
            assert np.abs(tensor - 3).max() < 0.02

    together(master.address, peers, play)


def test_who_has_it_and_what_would_help(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        tensor = np.full(100, np.nan if comm.rank == 1 else 1.0, np.float32)
        who = comm.peers()[1].id
        with pytest.raises(NonFiniteError) as caught:
            comm.all_reduce(tensor, "avg", quantization="int8")
        assert f"peer {who} has values in tensor 0 of call 0 of group 0" in str(caught.value)
        assert 'QuantConfig(non_finite="skip")' in str(caught.value)

    together(master.address, 2, play)


def test_a_sum_that_overflows_is_nobodys_fault(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        tensor = np.full(100, 3e38, np.float32)
        with pytest.raises(NonFiniteError, match="the sum of tensor 0") as caught:
            comm.all_reduce(tensor, "avg", quantization=skipping())
        assert "QuantConfig" not in str(caught.value), "which would not help"

    together(master.address, 2, play)


def test_policies_that_differ(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        config = skipping() if comm.rank == 0 else QuantConfig("int8")
        with pytest.raises(MismatchError, match="non_finite=skip"):
            comm.all_reduce(np.ones(9, np.float32), "avg", weight=1.0, quantization=config)
        comm.all_reduce(np.ones(9, np.float32), "avg", quantization="int8")

    together(master.address, 2, play)


def test_wrong_arguments(master: Master) -> None:
    with pytest.raises(UsageError, match="'raise' or 'skip'"):
        QuantConfig("int8", non_finite="ignore")  # type: ignore[arg-type]
    with (
        Communicator(master.address, config=QUICK) as comm,
        pytest.raises(UsageError, match=r"non_finite='skip' with op='sum': only op='avg'"),
    ):
        comm.all_reduce(np.ones(3, np.float32), "sum", quantization=skipping())


def test_error_feedback_of_who_is_skipped_stays(master: Master) -> None:
    rounds = 30

    def play(comm: Communicator, index: int) -> Any:
        feedback, rank = ErrorFeedback(), comm.rank
        total, given = np.zeros(640), np.zeros(640)
        for turn in range(rounds):
            tensor = np.linspace(0, rank + 1, 640, dtype=np.float32)
            skipped = rank == 0 and turn >= rounds // 2
            given += 0 if skipped else tensor
            tensor[7] = np.nan if skipped else tensor[7]
            before = feedback.state_dict().get("g")
            comm.all_reduce(tensor, "avg", quantization=skipping("int4"), error_feedback=feedback["g"])
            assert np.isfinite(tensor).all()
            if skipped and before is not None:
                assert np.array_equal(before[0], feedback.state_dict()["g"][0])
            total += tensor if turn < rounds // 2 else 0
        return given, total

    results = together(master.address, 3, play)
    assert all(np.array_equal(results[0][1], total) for _, total in results)


SURVIVE = """
comm = Communicator(address, min_islands=3, config=config)
say("in", comm.id)
while True:
    x = np.full(int(sys.argv[2]), 5, np.float32)
    if sys.argv[3] == "victim": x[3] = np.nan
    comm.all_reduce(x, "avg", quantization=QuantConfig("int8", non_finite="skip"))
"""


@pytest.mark.parametrize("culprit", ["victim", "survivor"])
@pytest.mark.parametrize("count", [1000, 1 << 20])
def test_a_peer_is_killed_inside(master: Master, spawn: Spawn, count: int, culprit: str) -> None:
    """Whoever is skipped in the end is right for those who are left, and values are those of the others."""
    victim = spawn("-c", PEER + SURVIVE, master.address, str(count), culprit)
    inside = threading.Event()

    def watch() -> None:
        expect(victim, "in")
        inside.set()

    def survive(index: int) -> Any:
        with Communicator(master.address, min_islands=3, config=QUICK) as comm:
            bad = culprit == "survivor" and index == 1
            after, deadline, infos = 0, time.monotonic() + 40, []
            while after < 10 and time.monotonic() < deadline:
                tensor = np.full(count, index + 1, np.float32)
                tensor[count // 2] = np.nan if bad else tensor[0]
                info = comm.all_reduce(tensor, "avg", quantization=skipping())
                there = {1: 1.0, 2: 2.0} if culprit == "victim" else {1: 1.0}
                three = len(info.contributors) + len(info.skipped) == 3
                if three and culprit == "survivor":
                    there[3] = 5.0
                assert np.abs(tensor - np.mean(list(there.values()))).max() < 0.05
                assert np.all(tensor == tensor[0])
                assert (comm.id in info.skipped) == bad
                infos.append((info.contributors, info.skipped))
                after += not three
                if index == 0 and inside.is_set():
                    victim.kill()
            return infos[-10:]

    ours, theirs, _ = in_threads([partial(survive, 0), partial(survive, 1), watch])
    assert len(ours) == 10 and ours == theirs
