"""What is sent: quantized windows, error feedback, NaN in one peer, weights, merges, clipping."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pccl_py as pccl
from pccl_py.optim import AsyncDiLoCo, DiLoCo, LocalSGD, Progress, StreamingDiLoCo
from pccl_py.optim.reduction import MARKS, SLOTS, TOTALS, Own, marked
from pccl_py.optim.residual_heirs import heirs
from tests.fakes import FakeComm, FakeWorld
from tests.threads import in_threads
from tests.toy import H, alone, batches, flat, inner_step, net, sgd

KINDS: dict[str, Any] = {
    "diloco": partial(DiLoCo, sync_every=H),
    "streaming": partial(StreamingDiLoCo, sync_every=H, num_fragments=2, fragment_sync_delay=1),
    "async": partial(AsyncDiLoCo, sync_every=H, staleness="gap"),
}


def given(size: int = 1000) -> nn.Module:
    """One vector, whose inner optimizer SGD(lr=1) subtracts what its gradient is set to."""
    return nn.ParameterDict({"w": nn.Parameter(torch.zeros(size))})


def play(comm: Any, deltas: list[torch.Tensor], **options: Any) -> tuple[list[torch.Tensor], LocalSGD]:
    """The model after each window, in which this peer moved by -delta; averaging of parameters."""
    model = given(len(deltas[0]))
    inner = torch.optim.SGD(model.parameters(), lr=1.0)
    seen = []
    with LocalSGD(comm, model, inner, sync_every=1, **options) as outer:
        for delta in deltas:
            model["w"].grad = delta.clone()  # type: ignore[index]
            inner.step()
            seen.append(flat(model))
    return seen, outer


def on_peers(peers: int, job: Any) -> list[Any]:
    def peer(rank: int, address: str) -> Any:
        with pccl.Communicator(address, min_islands=peers) as comm:
            return job(comm, rank)

    with pccl.Master() as master:
        return in_threads([partial(peer, rank, master.address) for rank in range(peers)])


def noise(peer: int, rounds: int, size: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(peer)
    return [torch.randn(size, generator=generator) for _ in range(rounds)]


@pytest.mark.parametrize(("kind", "bits", "block", "levels"), [("int8", 8, 256, 127), ("int4", 4, 64, 7)])
def test_bytes_and_error_of_a_quantized_window(kind: str, bits: int, block: int, levels: int) -> None:
    peers, size = 3, 1_000_000

    def job(comm: pccl.Communicator, rank: int) -> Any:
        seen, outer = play(comm, noise(rank, 2, size), quantization=kind, error_feedback=False)
        return seen, outer.stats.bytes_sent, outer.state_digest()

    results = on_peers(peers, job)
    exact = torch.stack([sum(noise(rank, 2, size)) for rank in range(peers)]).mean(0)  # type: ignore[misc]
    bound = 2 * max(float(d.abs().max()) for rank in range(peers) for d in noise(rank, 2, size)) / levels
    for seen, sent, digest in results:
        assert float((-seen[1] - exact).abs().max()) <= 2 * bound
        wanted = 2 * 2 * (peers - 1) / peers * size * (bits + 16 / block) / 8
        # 1 % of it, and the counts of two windows
        assert abs(sent - wanted) <= 0.01 * wanted + 2 * 4 * 8 * 200, (sent, wanted)
        assert torch.equal(seen[1], results[0][0][1]) and digest == results[0][2]


def test_a_window_of_nobody_sends_no_delta() -> None:
    """As at the end of training, where all have trained whole windows: int4's share stays 1/376 of it."""
    peers, size, windows = 4, 100_000, 3

    def job(comm: pccl.Communicator, rank: int) -> Any:
        _, outer = play(comm, noise(rank, windows, size), quantization="int4")
        before = outer.stats.bytes_sent
        outer.finalize()
        assert outer.stats.last is not None and outer.stats.last.weight == 0
        assert outer.windows == windows + 1 and outer.outer_step == windows
        return before, outer.stats.bytes_sent, outer.state_digest()

    results = on_peers(peers, job)
    counts = (peers - 1) * (8 * 15 + 4 * 64)
    for before, after, digest in results:
        wanted = windows * (2 * (peers - 1) / peers * size * (4 + 16 / 64) / 8 + counts)
        assert abs(before - wanted) <= 0.005 * wanted and after - before <= 1.1 * counts
        assert digest == results[0][2]


def test_peers_that_are_not_finite_are_marked_by_slot() -> None:
    def own(finite: bool) -> Own:
        return Own(0.5, 1, 0, 1.0, 2.5, finite=finite)

    for slots in ([], [0], [63], [5, 11, 12, 47, 63], list(range(SLOTS)), [7] * 7):
        sums = sum(own(False).counts(slot)[0] for slot in slots) + own(True).counts(9)[0]  # type: ignore[operator]
        assert marked(sums[TOTALS : TOTALS + MARKS].tolist()) == (set(slots), set())
        assert float(sums[5]) == 0.5 * (1 + len(slots)) and float(sums[6]) == 0.5 * len(slots)
        shares = (sums / 3 * 3).tolist()  # as an average gives them back
        assert marked(shares[TOTALS : TOTALS + MARKS]) == (set(slots), set())
    both = Own(1.0, 1, 0, 1.0, leaving=True, finite=False).counts(33)[0][TOTALS : TOTALS + MARKS].tolist()
    assert marked(both) == ({33}, {33})


def test_error_feedback_conserves_the_sum() -> None:
    rounds, size, peers = 12, 512, 3

    def job(comm: pccl.Communicator, rank: int) -> Any:
        seen, outer = play(comm, noise(rank, rounds, size), quantization="int4")
        residual = outer.state_dict()["residuals"]["0"][0]
        assert outer.stats.last is not None and outer.stats.last.quantization_error is not None
        assert math.isclose(outer.stats.last.quantization_error, float(residual.norm()), rel_tol=1e-5)
        return seen[-1], residual

    results = on_peers(peers, job)
    exact = torch.stack([sum(noise(rank, rounds, size)) for rank in range(peers)]).mean(0)  # type: ignore[misc]
    left = torch.stack([residual for _, residual in results]).mean(0)
    torch.testing.assert_close(-results[0][0] + left, exact, rtol=0, atol=2e-5)
    assert float(left.abs().max()) > 1e-3


def test_heirs_are_the_same_for_everybody() -> None:
    assert heirs([3, 1, 7], {3, 7}) == [(3, 1), (7, 1)]
    assert heirs([1, 2, 3, 4], {1}) == [(1, 2)] and heirs([1, 2], {1, 2}) == [] and heirs([1, 2], set()) == []
    assert heirs([1, 65, 2], {1}) == [], "one of two leaves, and nobody knows which"


@pytest.mark.parametrize("weighting", ["uniform", "tokens"])
def test_what_a_leaving_peer_held_back_is_not_lost(weighting: str) -> None:
    """Sum of weights times deltas of all peers = what was applied and what is held back now, to the last."""
    rounds, size, peers, leaves = 8, 512, 3, 5

    def job(comm: pccl.Communicator, rank: int) -> Any:
        model = given(size)
        inner = torch.optim.SGD(model.parameters(), lr=1.0)
        seen = [torch.zeros(size)]
        with LocalSGD(comm, model, inner, sync_every=1, quantization="int4", weighting=weighting) as outer:  # type: ignore[arg-type]
            for number, delta in enumerate(noise(rank, rounds, size)):
                if rank == 1 and number == leaves - 1:
                    outer.ask_to_leave()
                outer.add_tokens(1 + rank)
                model["w"].grad = delta  # type: ignore[index]
                inner.step()
                seen.append(flat(model))
                if outer.should_leave:
                    return None
            residual = outer.state_dict()["residuals"]["0"][0]
        return torch.stack(seen), residual, comm.id

    results = on_peers(peers, job)
    assert results[1] is None
    weights = [1.0, 1.0, 1.0] if weighting == "uniform" else [1.0, 2.0, 3.0]
    moved = -(results[0][0][1:] - results[0][0][:-1]).double()
    exact, applied = torch.zeros(size).double(), torch.zeros(size).double()
    for number in range(rounds):
        there = [0, 1, 2] if number < leaves else [0, 2]
        exact += sum(weights[rank] * noise(rank, rounds, size)[number] for rank in there)
        applied += moved[number] * sum(weights[rank] for rank in there)
    held = sum(weights[rank] * results[rank][1] for rank in (0, 2))
    torch.testing.assert_close(applied + held, exact, rtol=0, atol=1e-4)


def test_residual_changes_with_a_commit_only() -> None:
    def job(comm: pccl.Communicator, rank: int) -> Any:
        model = given(256)
        inner = torch.optim.SGD(model.parameters(), lr=1.0)
        outer = LocalSGD(comm, model, inner, sync_every=1, quantization="int4")  # type: ignore[arg-type]
        outer.sync()
        (first, second), bad = noise(rank, 2, 256), torch.full((256,), math.nan)
        model["w"].grad = first  # type: ignore[index]
        inner.step()
        outer.sync()
        before = outer.state_dict()["residuals"]["0"][0]
        model["w"].grad = bad if rank == 1 else second  # type: ignore[index]
        inner.step()
        with pytest.raises(pccl.NonFiniteError):
            outer.sync()
        assert torch.equal(outer.state_dict()["residuals"]["0"][0], before)
        outer.drop_window()
        model["w"].grad = second  # type: ignore[index]
        inner.step()
        outer.sync()
        assert not torch.equal(outer.state_dict()["residuals"]["0"][0], before)
        return flat(model), outer.windows, outer.state_digest()

    results = on_peers(2, job)
    assert (
        torch.equal(results[0][0], results[1][0]) and results[0][1:] == results[1][1:] and results[0][1] == 2
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [H, 2 * H + 1, 3 * H])
def test_what_is_held_back_goes_on_after_a_restart(kind: str, at: int) -> None:
    """Saved by three peers at any moment, and loaded by three of the same ranks: the same bits as without."""

    def part(comm: pccl.Communicator, begin: int, end: int, saved: Any) -> Any:
        rank, model = comm.rank, net()
        inner = torch.optim.AdamW(model.parameters(), lr=0.01)
        outer = KINDS[kind](comm, model, inner, quantization="int4")
        if saved is not None:
            model.load_state_dict(saved[rank][0])
            inner.load_state_dict(saved[rank][1])
            outer.load_state_dict(saved[rank][2])
        with outer:
            for x in batches(rank, end)[begin:]:
                inner_step(model, inner, x)
        return copy.deepcopy(
            (model.state_dict(), inner.state_dict(), outer.state_dict())
        ), outer.state_digest()

    def run(begin: int, end: int, saved: Any = None) -> list[Any]:
        found = on_peers(3, lambda comm, _: (comm.rank, part(comm, begin, end, saved)))
        return [result for _, result in sorted(found, key=lambda each: int(each[0]))]

    saved, through = run(0, at), run(0, 5 * H)
    again = run(at, 5 * H, [state for state, _ in saved])
    assert {digest for _, digest in again} == {digest for _, digest in through}
    held = [[state[2]["residuals"] for state, _ in results] for results in (through, again)]
    for one, other in zip(*held, strict=True):
        assert one.keys() == other.keys() and one
        assert all(torch.equal(a, b) for key in one for a, b in zip(one[key], other[key], strict=True))


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_nan_of_one_peer_is_raised_on_all_with_its_name(quantization: Any) -> None:
    def job(comm: pccl.Communicator, rank: int) -> Any:
        deltas = noise(rank, 1, 300)
        if rank == 1:
            deltas[0][7] = math.nan
        with pytest.raises(pccl.NonFiniteError) as caught:
            play(comm, deltas, quantization=quantization)
        return str(caught.value), comm.id

    results = on_peers(3, job)
    for text, _ in results:
        assert f"peer {results[1][1]}" in text, text


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_nan_of_one_peer_is_left_out_on_all(quantization: Any) -> None:
    size = 300

    def job(comm: pccl.Communicator, rank: int) -> Any:
        deltas = noise(rank, 2, size)
        if rank == 1:
            deltas[0][7] = math.inf
        seen, outer = play(comm, deltas, quantization=quantization, non_finite="skip", error_feedback=False)
        assert outer.stats.last is not None
        return seen, outer.state_digest(), comm.id, outer.stats

    results = on_peers(3, job)
    exact = (noise(0, 1, size)[0] + noise(2, 1, size)[0]) / 2
    for seen, digest, _, _ in results:
        torch.testing.assert_close(-seen[0], exact, rtol=0, atol=0.05 if quantization else 1e-6)
        assert digest == results[0][1] and bool(torch.isfinite(seen[1]).all())


def test_zeros_stay_zeros_when_quantized() -> None:
    def job(comm: pccl.Communicator, rank: int) -> Any:
        return play(comm, [torch.zeros(500)] * 2, quantization="int8")[0][1]

    for end in on_peers(2, job):
        assert not end.any()


# ---- weights -----------------------------------------------------------------------------------------------


def weighted(tokens: list[int], weighting: Any) -> list[torch.Tensor]:
    def peer(comm: FakeComm, rank: int) -> torch.Tensor:
        model = given(4)
        inner = torch.optim.SGD(model.parameters(), lr=1.0)
        with LocalSGD(comm, model, inner, sync_every=1, weighting=weighting) as outer:
            outer.add_tokens(tokens[rank])
            model["w"].grad = torch.full((4,), float(rank + 1))
            inner.step()
            assert outer.tokens == sum(tokens)
        return flat(model)

    return in_threads([partial(peer, comm, rank) for rank, comm in enumerate(FakeWorld(len(tokens)).comms)])


def test_weights_by_tokens() -> None:
    for end in weighted([10, 30, 0], "tokens"):
        torch.testing.assert_close(end, torch.full((4,), -(10 * 1 + 30 * 2) / 40))


def test_equal_tokens_are_uniform() -> None:
    for end, other in zip(weighted([8, 8], "tokens"), weighted([8, 8], "uniform"), strict=True):
        torch.testing.assert_close(end, other)


def test_weights_by_a_function() -> None:
    def squared(progress: Progress) -> float:
        assert progress.steps == 1 and progress.windows == 1 and progress.seconds >= 0
        return float(progress.tokens**2)

    for end in weighted([1, 3], squared):
        torch.testing.assert_close(end, torch.full((4,), -(1 + 9 * 2) / 10))


def test_nobody_with_a_weight_skips_the_outer_step() -> None:
    for end in weighted([0, 0], "tokens"):
        assert not end.any()


# ---- merge and clip ----------------------------------------------------------------------------------------


def test_radial_directional_average() -> None:
    """mean of norms times the direction of the mean direction, per tensor; embeddings: the mean."""

    torch.manual_seed(5)
    begin = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 2))

    def peer(comm: FakeComm, rank: int) -> dict[str, torch.Tensor]:
        model = copy.deepcopy(begin)
        inner = torch.optim.SGD(model.parameters(), lr=1.0)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        with LocalSGD(comm, model, inner, sync_every=1, merge="rda"):
            generator = torch.Generator().manual_seed(rank)
            deltas = {}
            for name, p in model.named_parameters():
                p.grad = deltas[name] = torch.randn(p.shape, generator=generator)
            given = {n: d.clone() for n, d in deltas.items()}
            inner.step()
        return given, {n: before[n] - p.detach() for n, p in model.named_parameters()}  # type: ignore[return-value]

    results: list[Any] = in_threads([partial(peer, c, r) for r, c in enumerate(FakeWorld(3).comms)])
    for name in ("0.weight", "1.weight", "1.bias"):
        deltas = [given[name].double().numpy() for given, _ in results]
        mean_direction = np.mean([d / np.linalg.norm(d) for d in deltas], axis=0)
        wanted = (
            np.mean([np.linalg.norm(d) for d in deltas]) * mean_direction / np.linalg.norm(mean_direction)
        )
        if name == "0.weight":
            wanted = np.mean(deltas, axis=0)
        for _, moved in results:
            np.testing.assert_allclose(moved[name].numpy(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_outer_step_is_clipped(limit: float) -> None:
    model = given(9)
    inner = torch.optim.SGD(model.parameters(), lr=1.0)
    theta, momentum = np.zeros(9), np.zeros(9)
    with DiLoCo(alone(), model, inner, sync_every=1, outer_momentum_clip=limit):
        for delta in noise(0, 5, 9):
            model["w"].grad = delta.clone()  # type: ignore[index]
            inner.step()
            momentum = 0.9 * momentum + delta.double().numpy()
            direction = delta.double().numpy() + 0.9 * momentum
            theta -= 0.7 * direction * min(1.0, limit / float(np.linalg.norm(direction)))
    np.testing.assert_allclose(flat(model).numpy(), theta, rtol=1e-4, atol=1e-5)


# ---- memory ------------------------------------------------------------------------------------------------


def test_buckets_and_backup_device_change_no_bit() -> None:
    def train(comm: FakeComm, rank: int, **options: Any) -> torch.Tensor:
        model = net()
        inner = sgd(model)
        with DiLoCo(comm, model, inner, sync_every=H, **options):
            for x in batches(rank, 3 * H):
                inner_step(model, inner, x)
        return flat(model)

    ends = []
    for options in ({}, {"bucket_cap_mb": 28 / 2**20}, {"backup_device": "cpu"}):
        jobs = [partial(train, c, r, **options) for r, c in enumerate(FakeWorld(2).comms)]
        ends += in_threads(jobs)  # 32 parameters: in tensors of 7
    assert all(torch.equal(end, ends[0]) for end in ends)
