"""elastic_data_parallel on real processes: peers are killed in each part of a step, newcomers come in.

Every sample is used exactly once, the bits are the same on all peers behind each step, and the weights are
those of one process that trains on the samples which the peers say they used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pccl_py import Master
from pccl_py.parallel import ElasticSampler

from ..peers import QUICK
from .gang import Gang
from .plays_elastic import BATCH, SAMPLES, flat, model, optimizer, sample, scheduler

Said = list[list[dict[str, Any]]]
STEPS, KILL_STEP, JOIN_AT = 14, 4, 8
PHASES = ["forward", "backward", "reduce", "committed", "optimizer", "between"]


@pytest.fixture(scope="module")
def address() -> Any:
    with Master("127.0.0.1:0", config=QUICK) as running:
        yield running.address


def used_in(said: Said, group: int = 0) -> list[list[int]]:
    """By step, the samples of those who contributed, in the order of the batch; all say the same."""
    shares: dict[tuple[int, int], list[int]] = {}
    contributors: dict[int, list[int]] = {}
    for event in (event for events in said for event in events if event.get("group") == group):
        if "share" in event:
            shares[event["step"], event["id"]] = event["share"]
        else:
            step = event["done"]
            assert contributors.setdefault(step, event["contributors"]) == event["contributors"]
    return [[i for p in contributors[s] for i in shares.get((s, p), [])] for s in sorted(contributors)]


def check_digests(said: Said, group: int = 0) -> None:
    digests: dict[int, set[str]] = {}
    for event in (event for events in said for event in events):
        if event.get("group") == group and "done" in event:
            digests.setdefault(event["done"], set()).add(event["digest"])
    assert all(len(found) == 1 for found in digests.values()), digests
    assert len(set.union(*digests.values())) == len(digests)


def check_ledger(
    used: list[list[int]], end: dict[str, Any], samples: int = SAMPLES, batch: int = BATCH
) -> None:
    """Those that are used, and those that came back and are not used yet, are what the run has passed."""
    stream = ElasticSampler(samples, global_batch=batch, seed=3)
    seen = [i for step in used for i in step]
    assert len(seen) == len(set(seen)), "a sample was used twice"
    open_ = [stream.index_of(p) for p in end["returned"]]
    assert sorted(seen + open_) == sorted(stream.index_of(p) for p in range(end["position"]))


def reference(used: list[list[int]]) -> tuple[list[float], list[float]]:
    """Losses and weights of one process."""
    net = model()
    inner = optimizer(net)
    rates = scheduler(inner)
    losses = []
    for step in used:
        xs, ys = zip(*(sample(i) for i in step), strict=True)
        loss = (net(torch.stack(xs)) - torch.stack(ys)).square().mean()
        loss.backward()
        inner.step()
        inner.zero_grad()
        rates.step()
        losses.append(loss.item())
    return losses, flat(net)


def check(said: Said, steps: int, survivors: list[int], unsaid: tuple[int, ...] = ()) -> None:
    """unsaid: steps whose loss a peer did not live to tell."""
    used = used_in(said)
    assert len(used) == steps
    check_digests(said)
    ends = [said[rank][-1] for rank in survivors]
    assert all(end["end"] == steps for end in ends)
    assert len({end["digest"] for end in ends}) == 1 and len({tuple(end["weights"]) for end in ends}) == 1
    check_ledger(used, ends[0])
    losses, weights = reference(used)
    np.testing.assert_allclose(ends[0]["weights"], weights, rtol=2e-4, atol=2e-5)
    assert ends[0]["lr"] == ends[-1]["lr"] == pytest.approx(0.01 * 0.99**steps)
    for step, loss in enumerate(losses):  # the mean over whoever was there: no jump where a peer leaves
        said_losses = {e["loss"] for rank in survivors for e in said[rank] if e.get("done") == step}
        assert len(said_losses) == 1
        assert said_losses.pop() == pytest.approx(loss, rel=0.1 if step in unsaid else 1e-4)


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("ddp", [False, True])
def test_whoever_is_there_the_numbers_are_those_of_one_process(
    gang: Gang, address: str, ranks: int, ddp: bool
) -> None:
    said = gang.play("plays_elastic:train", ranks, address=address, steps=6, ddp=ddp)
    check(said, 6, list(range(ranks)))
    if ranks == 1:
        assert said[0][-1]["weights"] == reference(used_in(said))[1], "one peer is one process, to the bit"


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("ddp", [False, True])
def test_a_peer_is_killed_and_another_comes(gang: Gang, address: str, phase: str, ddp: bool) -> None:
    said = gang.play(
        "plays_elastic:train", 4, killed=(1,), address=address, steps=STEPS, ddp=ddp,
        workers=2 if phase == "backward" else 0, kills={"1": [phase, KILL_STEP]}, joins=[3], join_at=JOIN_AT,
    )  # fmt: skip
    used = used_in(said)
    had = next(e["share"] for e in said[1] if e.get("step") == KILL_STEP)
    landed = phase == "reduce" and set(had).issubset(used[KILL_STEP])  # it was slower to die than to vote
    check(said, STEPS, [0, 2, 3], (KILL_STEP,) if phase == "committed" or landed else ())
    counted = phase in ("optimizer", "between", "committed") or landed
    assert had and len(used[KILL_STEP]) == (BATCH if counted else BATCH - len(had))
    assert counted == set(had).issubset(used[KILL_STEP])
    assert counted or used[KILL_STEP + 1][: len(had)] == had, "what came back is the first of the next batch"
    assert len(used[-1]) == BATCH
    assert said[3][0]["began"] == JOIN_AT + 1
    assert len({e["id"] for e in said[0] if "share" in e}) == 1, "nobody had to come back"


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("victim", [1, 3])
def test_a_peer_is_killed_while_a_newcomer_gets_the_state(
    gang: Gang, address: str, phase: str, victim: int
) -> None:
    """The newcomer, or one that gives. The newcomer has no samples of the step in which the state travels;
    the others wait for it before they change anything."""
    said = gang.play(
        "plays_elastic:train", 4, killed=(victim,), address=address, steps=STEPS,
        kills={str(victim): [phase, JOIN_AT + 1]}, joins=[3], join_at=JOIN_AT, delay_s=0.3,
    )  # fmt: skip
    had = next((e["share"] for e in said[1] if e.get("step") == JOIN_AT + 1), [])
    landed = phase == "reduce" and set(had).issubset(used_in(said)[JOIN_AT + 1])
    unsaid = (JOIN_AT + 1,) if victim == 1 and (phase == "committed" or landed) else ()
    check(said, STEPS, [0, 2] if victim == 3 else [0, 2, 3], unsaid)
    newcomer = [e for e in said[3] if "share" in e]
    assert newcomer[0]["step"] == JOIN_AT + 1 and newcomer[0]["share"] == []
    assert victim == 3 or (newcomer[1]["share"] and newcomer[1]["step"] == JOIN_AT + 2)


def test_a_peer_that_was_evicted_comes_back(gang: Gang, address: str) -> None:
    """It was stopped for longer than heartbeats may be missing; the same objects train on."""
    said = gang.play(
        "plays_elastic:train", 3, address=address, steps=STEPS, kills={"1": ["stopped", KILL_STEP]},
        join_at=JOIN_AT,
    )  # fmt: skip
    check(said, STEPS, [0, 1, 2])
    assert [e["void"] for e in said[1] if "void" in e] == [KILL_STEP]
    assert len({e["id"] for e in said[1] if "share" in e}) == 2
    used = used_in(said)
    had = next(e["share"] for e in said[1] if e.get("step") == KILL_STEP)
    assert not set(had) & set(used[KILL_STEP]) and used[KILL_STEP + 1][: len(had)] == had


@pytest.mark.parametrize("phase", ["", "forward", "backward", "reduce", "optimizer"])
def test_islands_of_fsdp_ranks_are_killed_and_come(gang: Gang, address: str, phase: str) -> None:
    """Two islands of two ranks each, and a third one that comes. Each group has its own samples."""
    kills = {"2": [phase, KILL_STEP], "3": [phase, KILL_STEP]} if phase else {}
    said = gang.play(
        "plays_elastic:islands", 6 if phase else 4, killed=(2, 3) if phase else (), address=address,
        steps=STEPS, kills=kills, joins=[2] if phase else [], join_at=JOIN_AT if phase else None,
    )  # fmt: skip
    survivors = [0, 1, 4, 5] if phase else [0, 1, 2, 3]
    for group in (0, 1):
        check_digests(said, group)
        ends = [said[rank][-1] for rank in survivors if rank % 2 == group]
        assert {end["end"] for end in ends} == {STEPS} and len({end["digest"] for end in ends}) == 1
        check_ledger(used_in(said, group), ends[0], SAMPLES // 2, BATCH // 2)
    columns = [used_in(said, group) for group in (0, 1)]
    both = [[2 * i for i in a] + [2 * i + 1 for i in b] for a, b in zip(*columns, strict=True)]
    losses, _ = reference(both)
    for step, loss in enumerate(losses):
        of_groups = [
            next(
                e["loss"]
                for rank in survivors
                for e in said[rank]
                if e.get("done") == step and e["group"] == g
            )
            for g in (0, 1)
        ]
        assert sum(of_groups) / 2 == pytest.approx(loss, rel=2e-4)
