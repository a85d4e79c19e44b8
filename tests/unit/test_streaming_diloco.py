"""StreamingDiLoCo: against its formulas in one process, its special cases, joiners and checkpoints."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pccl_py as pccl
from pccl_py.optim import DiLoCo, StreamingDiLoCo
from pccl_py.optim.fragments import Schedule, balanced
from tests.fakes import FakeComm, FakeWorld
from tests.threads import in_threads
from tests.toy import OUTER, H, alone, batches, flat, inner_step, net, sgd

# ---- fragments ---------------------------------------------------------------------------------------------


def test_fragments_are_balanced_and_complete() -> None:
    sizes = [100, 1, 50, 50, 3, 100, 0, 7]
    groups = balanced(sizes, [f"p{i}" for i in range(8)], 3)
    assert sorted(i for group in groups for i in group) == list(range(8))
    assert all(group == sorted(group) for group in groups)
    sums = [sum(sizes[i] for i in group) for group in groups]
    assert max(sums) - min(sums) <= 10
    assert balanced([0, 0, 0], ["a", "b", "c"], 3) == [[0], [1], [2]]
    with pytest.raises(pccl.UsageError, match="num_fragments=9"):
        balanced(sizes, ["x"] * 8, 9)


def test_schedule_visits_every_fragment_once_per_window() -> None:
    schedule = Schedule(10, 4, 1)
    departures = np.cumsum([schedule.interval(k) for k in range(8)])
    assert departures.tolist() == [2, 5, 7, 10, 12, 15, 17, 20]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sync_every": 3, "num_fragments": 4}, "less than num_fragments=4"),
        ({"sync_every": 8, "num_fragments": 2, "fragment_sync_delay": 4}, "at most 3"),
        ({"sync_every": 8, "num_fragments": 5}, "num_fragments=5: the model has 4"),
        ({"sync_every": 8, "fragment_update_alpha": 1.5}, "0 to 1"),
        ({"sync_every": 8, "fragment_sync_delay": -1}, "at least 0"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], text: str) -> None:
    model = net()
    with pytest.raises(pccl.UsageError, match=text):
        StreamingDiLoCo(alone(), model, sgd(model), **options)


# ---- the recursion -----------------------------------------------------------------------------------------


def reference(
    peers: int, steps: int, h: int, groups: list[list[int]], tau: int, alpha: float, lr: float, mu: float
) -> tuple[list[np.ndarray[Any, Any]], list[np.ndarray[Any, Any]]]:
    """Outer parameters and those of each peer after `steps`, in float64 numpy but for the inner steps.

    Fragment p leaves where step mod h = (p + 1) h / F mod h, and `tau` steps later
    m_p = mu m_p + mean; theta_p -= lr (mean + mu m_p); local_p = alpha local_p + (1 - alpha) theta_p.
    """
    models = [net() for _ in range(peers)]
    inners = [sgd(model) for model in models]
    data = [batches(peer, steps) for peer in range(peers)]
    theta = [p.detach().double().numpy().copy() for p in models[0].parameters()]
    momentum = [np.zeros_like(t) for t in theta]
    count, under_way = len(groups), {}
    for step in range(1, steps + 1):
        for peer in range(peers):
            inner_step(models[peer], inners[peer], data[peer][step - 1])
        for p, group in enumerate(groups):
            if step % h == (p + 1) * h // count % h:
                mean = {}
                for i in group:
                    local = [list(m.parameters())[i].detach().double().numpy() for m in models]
                    mean[i] = np.mean([theta[i] - one for one in local], axis=0)
                under_way[step + tau] = mean
        for i, delta in under_way.pop(step, {}).items():
            momentum[i] = mu * momentum[i] + delta
            theta[i] = theta[i] - lr * (delta + mu * momentum[i])
            for model in models:
                parameter = list(model.parameters())[i]
                own = parameter.detach().double().numpy()
                mixed = torch.from_numpy(alpha * own + (1 - alpha) * theta[i])
                with torch.no_grad():
                    parameter.copy_(mixed)
    locals_ = [np.concatenate([p.detach().numpy().reshape(-1) for p in m.parameters()]) for m in models]
    return theta, locals_


def train(
    comm: Any, peer: int, steps: int, *, final: bool = False, **options: Any
) -> tuple[dict[str, Tensor], Tensor, str, StreamingDiLoCo]:
    model = net()
    inner = sgd(model)
    with StreamingDiLoCo(comm, model, inner, **options) as outer:
        for x in batches(peer, steps):
            inner_step(model, inner, x)
        before = flat(model)
        if final:
            outer.finalize()
            before = flat(model)
    return outer.outer_parameters(), before, outer.state_digest(), outer


@pytest.mark.parametrize(("fragments", "tau", "alpha"), [(2, 0, 0.0), (2, 2, 0.5), (3, 1, 0.0), (4, 1, 0.25)])
def test_peers_equal_one_process(fragments: int, tau: int, alpha: float) -> None:
    peers, steps, h = 3, 60, 12
    options: dict[str, Any] = {"sync_every": h, "num_fragments": fragments, "fragment_sync_delay": tau}
    options |= {"fragment_update_alpha": alpha, "outer_optimizer": partial(
        torch.optim.SGD, lr=0.4, momentum=0.9, nesterov=True)}  # fmt: skip
    world = FakeWorld(peers)
    results = in_threads([partial(train, c, p, steps, **options) for p, c in enumerate(world.comms)])
    names = [name for name, _ in net().named_parameters()]
    groups = balanced([p.numel() for p in net().parameters()], names, fragments)
    theta, local = reference(peers, steps, h, groups, tau, alpha, 0.4, 0.9)
    for peer, (outer, end, digest, _) in enumerate(results):
        for name, wanted in zip(names, theta, strict=True):
            np.testing.assert_allclose(outer[name].numpy(), wanted, rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(end.numpy(), local[peer], rtol=2e-4, atol=2e-5)
        assert digest == results[0][2]


@pytest.mark.parametrize("outer", OUTER)
def test_one_fragment_without_delay_is_diloco_bit_for_bit(outer: str) -> None:
    def peer(kind: Any, comm: FakeComm, rank: int, **options: Any) -> tuple[Tensor, dict[str, Tensor]]:
        model = net()
        inner = torch.optim.AdamW(model.parameters(), lr=0.01)
        with kind(comm, model, inner, sync_every=H, outer_optimizer=OUTER[outer], **options) as diloco:
            for x in batches(rank, 5 * H):
                inner_step(model, inner, x)
        return flat(model), diloco.state_dict()["buffers"]

    ends = []
    for kind, options in ((DiLoCo, {}), (StreamingDiLoCo, {"num_fragments": 1})):
        jobs = [partial(peer, kind, c, r, **options) for r, c in enumerate(FakeWorld(3).comms)]
        ends += in_threads(jobs)
    for end, buffers in ends:
        assert torch.equal(end, ends[0][0])
        assert all(torch.equal(value, ends[0][1][key]) for key, value in buffers.items())


def test_alpha_1_leaves_the_models_alone() -> None:
    def peer(comm: FakeComm, rank: int) -> tuple[Tensor, Tensor]:
        options = {
            "sync_every": 4,
            "num_fragments": 2,
            "fragment_sync_delay": 1,
            "fragment_update_alpha": 1.0,
        }
        _, end, _, _ = train(comm, rank, 16, **options)
        model = net()
        inner = sgd(model)
        for x in batches(rank, 16):
            inner_step(model, inner, x)
        return end, flat(model)

    for end, alone_end in in_threads([partial(peer, c, r) for r, c in enumerate(FakeWorld(2).comms)]):
        assert torch.equal(end, alone_end)


@pytest.mark.parametrize("steps", [[24, 24, 24], [25, 30, 24], [0, 3, 14]])
def test_all_end_with_equal_bits(steps: list[int]) -> None:
    options = {"sync_every": 8, "num_fragments": 2, "fragment_sync_delay": 2}
    world = FakeWorld(3)
    jobs = [partial(train, c, p, steps[p], final=True, **options) for p, c in enumerate(world.comms)]
    results = in_threads(jobs)
    for outer, end, digest, diloco in results:
        assert torch.equal(end, results[0][1]) and digest == results[0][2]
        assert diloco.windows == results[0][3].windows
        assert torch.equal(end, torch.cat([outer[n].reshape(-1) for n, _ in net().named_parameters()]))


# ---- overlap -----------------------------------------------------------------------------------------------


def test_the_reduction_runs_while_the_peer_trains() -> None:
    """It leaves at step 4, is not waited for until step 6, and counts as stale by 2 steps."""
    comm = alone()
    model = net()
    inner = sgd(model)
    with StreamingDiLoCo(comm, model, inner, sync_every=4, num_fragments=1, fragment_sync_delay=2) as outer:
        for step, x in enumerate(batches(0, 6), 1):
            inner_step(model, inner, x)
            assert len(comm.calls) == (1 if step < 4 else 3)
            assert outer.windows == (step >= 6)
    assert outer.stats.last is not None and (outer.stats.last.staleness, outer.stats.last.steps) == (2, 4)


def test_explicit_calls_are_departure_and_application_by_turns() -> None:
    def by_hand(comm: FakeComm, rank: int) -> Tensor:
        model = net()
        inner = sgd(model)
        options: Any = {"sync_every": 4, "num_fragments": 1, "fragment_sync_delay": 2}
        outer = StreamingDiLoCo(comm, model, inner, **options)
        outer.sync()
        for step, x in enumerate(batches(rank, 14), 1):
            inner_step(model, inner, x)
            if step % 4 == 0:
                outer.sync()
            if step % 4 == 2 and step > 4:
                assert outer.sync() is not None
        return flat(model)

    hand = in_threads([partial(by_hand, c, r) for r, c in enumerate(FakeWorld(2).comms)])
    options = {"sync_every": 4, "num_fragments": 1, "fragment_sync_delay": 2}
    hooks = in_threads([partial(train, c, r, 14, **options) for r, c in enumerate(FakeWorld(2).comms)])
    for one, (_, other, _, _) in zip(hand, hooks, strict=True):
        assert torch.equal(one, other)


# ---- checkpoints -------------------------------------------------------------------------------------------


def clone(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: clone(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [clone(value) for value in tree]
    return tree.clone() if isinstance(tree, Tensor) else tree


@pytest.mark.parametrize("at", [0, 1, 3, 4, 5, 6, 8, 9, 13])
def test_save_and_load_anywhere_goes_on_bit_for_bit(at: int) -> None:
    options: dict[str, Any] = {"sync_every": 8, "num_fragments": 2, "fragment_sync_delay": 2}
    saved: list[Any] = [None, None]

    def play(again: bool, comm: FakeComm, rank: int) -> tuple[Tensor, list[str]]:
        model = net()
        inner = torch.optim.AdamW(model.parameters(), lr=0.01)
        outer = StreamingDiLoCo(comm, model, inner, **options)
        if again:
            model.load_state_dict(saved[rank][0])
            inner.load_state_dict(saved[rank][1])
            outer.load_state_dict(saved[rank][2])
        digests = []
        with outer:
            for step, x in enumerate(batches(rank, 24)):
                if step == at and not again:
                    saved[rank] = clone([model.state_dict(), inner.state_dict(), outer.state_dict()])
                if step < at and again:
                    continue
                inner_step(model, inner, x)
                if step >= 14:
                    digests.append(outer.state_digest())
            outer.finalize()
        return flat(model), digests

    through = in_threads([partial(play, False, c, r) for r, c in enumerate(FakeWorld(2).comms)])
    again = in_threads([partial(play, True, c, r) for r, c in enumerate(FakeWorld(2).comms)])
    for (one, digests), (other, others) in zip(through, again, strict=True):
        assert digests == others and torch.equal(one, other)


def test_a_fresh_peer_takes_the_average_that_waited_in_a_checkpoint() -> None:
    """Saved between departure and application: the average is shared state, and reaches a newcomer."""
    options: dict[str, Any] = {"sync_every": 4, "num_fragments": 2, "fragment_sync_delay": 1}
    model = net()
    inner = sgd(model)
    with StreamingDiLoCo(alone(), model, inner, **options) as outer:
        for x in batches(0, 4):
            inner_step(model, inner, x)
        saved = clone([model.state_dict(), outer.state_dict()])
        digest = outer.state_digest()
    assert saved[1]["pending"] is not None

    def peer(comm: FakeComm, rank: int) -> tuple[str, str]:
        model = net(rank)
        inner = sgd(model)
        outer = StreamingDiLoCo(comm, model, inner, **options)
        if rank == 0:
            model.load_state_dict(saved[0])
            outer.load_state_dict(saved[1])
        outer.sync()
        first = outer.state_digest()
        inner_step(model, inner, batches(0, 5)[4])
        outer.sync()
        return first, outer.state_digest()

    (a, then), (b, also) = in_threads([partial(peer, c, r) for r, c in enumerate(FakeWorld(2).comms)])
    assert a == b == digest and then == also != a


# ---- joiners -----------------------------------------------------------------------------------------------


def test_joiner_counts_for_a_fragment_after_a_whole_window() -> None:
    """It comes in behind the application of a fragment, which it then trains for a whole window; the others
    it has trained for less."""
    import threading
    import time

    options: dict[str, Any] = {"sync_every": 8, "num_fragments": 4, "fragment_sync_delay": 1}
    begun = threading.Event()

    def peer(rank: int, master: pccl.Master) -> tuple[dict[int, str], dict[int, float], StreamingDiLoCo]:
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        inner = sgd(model)
        digests, weights = {}, {}
        if rank == 2:
            begun.wait(20)
        with pccl.Communicator(master.address, min_islands=2) as comm:
            with StreamingDiLoCo(comm, model, inner, **options) as outer:
                while outer.windows < 16:
                    inner.zero_grad()
                    model(torch.randn(4, 3)).square().sum().backward()
                    before = outer.windows
                    inner.step()
                    if outer.windows == before:
                        continue
                    assert outer.stats.last is not None
                    digests[outer.windows] = outer.state_digest()
                    weights[outer.windows] = outer.stats.last.weight
                    if outer.windows == 4:
                        begun.set()
                        while not master.status()["waiting"]:
                            time.sleep(0.001)
                outer.finalize()
            return digests, weights, outer

    with pccl.Master() as master:
        results = in_threads([partial(peer, rank, master) for rank in range(3)])
    for digests, _, outer in results:
        assert all(digest == results[0][0][window] for window, digest in digests.items())
        assert outer.stats.repairs == 0 and outer.state_digest() == results[0][2].state_digest()
    joined = min(results[2][0]) - 1
    weights = results[0][1]
    assert [weights[n] for n in range(joined + 1, joined + 6)] == [2.0, 2.0, 2.0, 3.0, 3.0]
