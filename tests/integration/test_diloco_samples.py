"""The DiLoCo family on batches of an ElasticSampler: one peer is killed, one joins, and every sample of an
epoch is in the committed windows once; and the mean of a number behind each window."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from pccl_py import Master
from pccl_py.parallel import ElasticSampler
from pccl_py.parallel.sample_ledger import SampleLedger
from tests.conftest import Spawn

from .diloco_peer import PULL
from .sampled_peer import BATCH, EPOCHS, OVERLAP, SAMPLES, STEPS, WIDTH, targets
from .test_diloco import Run

MODULE = "tests.integration.sampled_peer"
Shares = dict[int, dict[str, list[list[int]]]]


@pytest.mark.parametrize(
    ("kind", "death"),
    [
        ("diloco", ("--die-in-window", "4")),
        ("async", ("--die-in-window", "4")),
        *(
            pytest.param(kind, death, marks=pytest.mark.nightly)
            for kind, death in [
                ("diloco", ("--die-in-commit", "4")),
                ("fragments", ("--die-in-window", "4")),
                ("streaming", ("--die-in-window", "4")),
                ("async", ("--die-in-commit", "4")),
            ]
        ),
    ],
)
def test_every_sample_counts_once(spawn: Spawn, master: Master, kind: str, death: tuple[str, ...]) -> None:
    run = Run(spawn, master.address, MODULE)
    for name in "ABC":
        run.start(name, kind, "--founders", "3", *(death if name == "C" else ()))
    run.start("J", kind, "--wait")
    run.until("ready", "J")
    run.until("window", "A", number=6)
    run.go("J")
    run.finish(killed={"C"})

    assert all(len(found) == 1 for found in run.digests().values()), run.digests()
    ends = [run.of(name, "end")[0] for name in "ABJ"]
    assert len({end["digest"] for end in ends}) == 1
    members, shares = run.contributors(), shares_of(run)
    assert members[1] == {"A", "B", "C"} and members[max(members)] == {"A", "B", "J"}
    if kind in ("fragments", "streaming"):  # who came in counts for a fragment after a whole window of it
        for event in run.of("J", "window"):
            if not event["own"]:
                shares[event["number"]].pop("J", None)
    took = [step for n, who in members.items() for name in who for step in shares[n].get(name, [])]
    used = Counter(i for step in took for i in step)
    assert used == expected(ends[0]["state"], overlapping=kind in OVERLAP)
    if kind == "diloco":
        whole = {
            n: sum(len(step) for steps in shares[n].values() for step in steps) == BATCH for n in members
        }
        assert all(full or n in (5, 6) for n, full in whole.items()), (
            "a window has the same, whoever is there"
        )
        check_values(run, members, shares)
    check_means(run)


def shares_of(run: Run) -> Shares:
    """By window, counted from 1, and peer: the samples of each step that it took of it."""
    found: Shares = {}
    for name in run.said:
        for event in run.of(name, "step"):
            found.setdefault(event["window"] + 1, {}).setdefault(name, []).append(event["share"])
    return found


def expected(state: list[int], *, overlapping: bool) -> Counter[int]:
    """How often each sample is to have been used: once in each epoch, and what has begun of the next."""
    sampler = ElasticSampler(SAMPLES, global_batch=BATCH, seed=3, overlapping=overlapping)
    sampler.state[:] = state
    found: Counter[int] = Counter()
    for turn, ledger in enumerate(sampler.ledgers):
        done = set(range(ledger.position)) - set(ledger.returned)
        positions = [p * len(sampler.ledgers) + turn for p in done]
        assert set(range(turn, EPOCHS * SAMPLES, len(sampler.ledgers))) <= set(positions)
        found.update(sampler.index_of(p) for p in positions)
    least = min(found.values())
    assert least >= EPOCHS and max(found.values()) <= least + 1 and len(found) == SAMPLES
    return found


def check_values(run: Run, members: dict[int, set[str]], shares: Shares) -> None:
    """DiLoCo in float64, each peer on its samples."""
    aims = targets().numpy()
    theta, momentum = np.zeros(WIDTH), np.zeros(WIDTH)
    for number in sorted(members):
        deltas: list[Any] = []
        for name in sorted(members[number]):
            local = theta.copy()
            assert len(shares[number][name]) == STEPS
            for share in shares[number][name]:
                local -= PULL * (local - aims[share].mean(0))
            deltas.append(theta - local)
        delta = np.mean(deltas, axis=0)
        momentum = 0.9 * momentum + delta
        theta = theta - 0.7 * (delta + 0.9 * momentum)
        for event in (e for name in "AB" for e in run.of(name, "window") if e["number"] == number):
            assert event["weight"] == len(members[number])
            np.testing.assert_allclose(event["theta"], theta, atol=1e-5)


def check_means(run: Run) -> None:
    """Of each window: the same bits on all who are there, weighted by samples."""
    by_window: dict[int, list[dict[str, Any]]] = {}
    for name in run.said:
        for event in run.of(name, "metric"):
            by_window.setdefault(event["window"], []).append(event)
    assert len(by_window) > 10
    for events in by_window.values():
        weights = [e["weight"] for e in events]
        assert len({e["mean"] for e in events}) == 1
        wanted = np.average([e["value"] for e in events], weights=weights) if sum(weights) else 0.0
        assert events[0]["mean"] == pytest.approx(wanted, rel=1e-12)


def test_two_ledgers_have_the_whole_stream_between_them() -> None:
    """The same in one process, with batches committed a batch late."""
    sampler = ElasticSampler(30, global_batch=4, seed=1, overlapping=True)
    seen: list[int] = []
    for turn in (0, 1):
        sampler.seat([1, 2], turn)
    for batch in range(20):
        turn = batch % 2
        positions = {peer: sampler.positions(peer, turn) for peer in (1, 2)}
        gone = {2} if batch in (3, 4, 8) else set()
        used = sum(sampler.used(peer, turn) for peer in (1, 2) if peer not in gone)
        seen += [p for peer in (1, 2) if peer not in gone for p in positions[peer]]
        sampler.commit(np.asarray(used), [1, 2], turn)
    assert len(seen) == len(set(seen)) and sampler.step == 20
    open_ones = [p * 2 + turn for turn, ledger in enumerate(sampler.ledgers) for p in ledger.returned]
    ends = [ledger.position * 2 + turn for turn, ledger in enumerate(sampler.ledgers)]
    assert set(seen) | set(open_ones) >= set(range(min(ends)))
    again = ElasticSampler(30, global_batch=4, seed=1, overlapping=True)
    again.load_state_dict(sampler.state_dict())
    assert [again.share(2, turn) for turn in (0, 1)] == [sampler.share(2, turn) for turn in (0, 1)]
    assert again.state.shape == (2 * SampleLedger.length(4),)
