"""DiLoCo computes what its formulas say: P peers, emulated by threads, against references in one process."""

from __future__ import annotations

import math
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pccl_py as pccl
from pccl_py.optim import DiLoCo
from pccl_py.parallel import ElasticSampler
from tests.fakes import FakeComm, FakeWorld
from tests.threads import in_threads
from tests.toy import OUTER, H, alone, batches, flat, inner_step, net, reference, sgd, train

# ---- the recursion -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("peers", [1, 3])
def test_peers_equal_one_process_bit_for_bit(peers: int, outer: str) -> None:
    world = FakeWorld(peers)
    jobs = [partial(train, world.comms[p], p, 5, outer_optimizer=OUTER[outer]) for p in range(peers)]
    results = in_threads(jobs)
    expected = reference(peers, 5, OUTER[outer])
    for model, digests in results:
        assert torch.equal(model, expected)
        assert digests == results[0][1]
    assert len(set(results[0][1])) == 5


@pytest.mark.parametrize("outer", OUTER)
def test_world_of_one_is_the_single_process_optimizer(outer: str) -> None:
    with pccl.Master() as master, pccl.Communicator(master.address) as comm:
        model, _ = train(comm, 0, 5, outer_optimizer=OUTER[outer])
    assert torch.equal(model, reference(1, 5, OUTER[outer]))


@pytest.mark.parametrize("peers", [2, 3])
def test_real_peers_equal_one_process(peers: int) -> None:
    def peer(rank: int, address: str) -> tuple[int, Tensor, list[str]]:
        with pccl.Communicator(address, min_islands=peers) as comm:
            model, digests = train(comm, rank, 5)
            return comm.id, model, digests

    with pccl.Master() as master:
        results = in_threads([partial(peer, rank, master.address) for rank in range(peers)])
    for _, model, digests in results:
        torch.testing.assert_close(model, reference(peers, 5, OUTER["nesterov"]), rtol=1e-5, atol=1e-6)
        assert torch.equal(model, results[0][1])
        assert digests == results[0][2]


def test_default_is_nesterov_as_the_paper_writes_it() -> None:
    """m <- 0.9 m + delta; theta <- theta - 0.7 (delta + 0.9 m), in float64, from pseudo-gradients alone."""
    theta, momentum = np.array([1.0, -2.0]), np.zeros(2)
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(theta))
    inner = sgd(model, lr=1.0)
    with DiLoCo(alone(), model, inner, sync_every=1):
        for step in range(20):
            delta = np.array([math.sin(step), math.cos(3 * step)])
            model.weight.grad = torch.from_numpy(delta).float().reshape(1, 2)
            inner.step()  # local = outer - delta
            momentum = 0.9 * momentum + delta
            theta = theta - 0.7 * (delta + 0.9 * momentum)
    np.testing.assert_allclose(model.weight.detach().numpy()[0], theta, rtol=2e-5)


def test_outer_step_descends() -> None:
    model = nn.Linear(1, 1, bias=False)
    inner = sgd(model, lr=0.1)
    with DiLoCo(alone(), model, inner, sync_every=1):
        before = abs(model.weight.item())
        (0.5 * model.weight.square()).sum().backward()
        inner.step()
    assert abs(model.weight.item()) < before


# ---- its special cases -------------------------------------------------------------------------------------


def test_outer_sgd_1_is_parameter_averaging() -> None:
    world = FakeWorld(3)
    jobs = [
        partial(train, comm, p, 3, outer_optimizer=partial(torch.optim.SGD, lr=1.0))
        for p, comm in enumerate(world.comms)
    ]
    models = [net() for _ in range(3)]
    inners = [torch.optim.AdamW(m.parameters(), lr=0.01) for m in models]
    for window in range(3):
        for peer in range(3):
            for x in batches(peer, 3 * H)[window * H : (window + 1) * H]:
                inner_step(models[peer], inners[peer], x)
        with torch.no_grad():
            for same in zip(*[m.parameters() for m in models], strict=True):
                mean = torch.stack([p.detach() for p in same]).mean(0)
                for p in same:
                    p.copy_(mean)
    for model, _ in in_threads(jobs):
        torch.testing.assert_close(model, flat(models[0]), rtol=1e-5, atol=1e-6)


def test_h_1_with_sgd_is_data_parallel_sgd() -> None:
    def peer(comm: FakeComm, rank: int) -> Tensor:
        model = net()
        inner = sgd(model)
        outer = partial(torch.optim.SGD, lr=1.0)
        with DiLoCo(comm, model, inner, sync_every=1, outer_optimizer=outer):
            for x in batches(rank, 10):
                inner_step(model, inner, x)
        return flat(model)

    model = net()
    optimizer = sgd(model)
    for step in range(10):
        optimizer.zero_grad()
        for rank in range(3):
            x = batches(rank, 10)[step]
            ((model(x) - x[:, :2].sin()).square().mean() / 3).backward()
        optimizer.step()
    for result in in_threads([partial(peer, c, r) for r, c in enumerate(FakeWorld(3).comms)]):
        torch.testing.assert_close(result, flat(model), rtol=1e-5, atol=1e-6)


def test_peers_with_other_initial_values_start_alike() -> None:
    world = FakeWorld(3)
    results = in_threads([partial(train, c, p, 2, seed=p) for p, c in enumerate(world.comms)])
    assert results[0][1] == results[1][1] == results[2][1]
    assert torch.equal(results[2][0], reference(3, 2, OUTER["nesterov"]))  # that of rank 0


def test_hooks_and_sync_are_the_same() -> None:
    def by_hand(comm: FakeComm, peer: int) -> Tensor:
        model = net()
        inner = torch.optim.AdamW(model.parameters(), lr=0.01)
        outer = DiLoCo(comm, model, inner, sync_every=H)
        assert outer.sync() is None
        for window in range(3):
            for x in batches(peer, 3 * H)[window * H : (window + 1) * H]:
                inner_step(model, inner, x)
            done = outer.sync()
            assert done is not None and (done.number, done.steps, done.weight) == (window + 1, H, 2.0)
        return flat(model)

    world = FakeWorld(2)
    results = in_threads([partial(by_hand, c, p) for p, c in enumerate(world.comms)])
    assert torch.equal(results[0], reference(2, 3, OUTER["nesterov"]))


# ---- weights and counters ----------------------------------------------------------------------------------


def test_peer_without_steps_has_weight_0() -> None:
    def peer(comm: FakeComm, rank: int) -> tuple[Tensor, str, DiLoCo]:
        model = net()
        inner = torch.optim.AdamW(model.parameters(), lr=0.01)
        outer = DiLoCo(comm, model, inner, sync_every=H)
        outer.sync()
        for x in batches(rank, H) if rank else []:
            outer.add_tokens(8)
            inner_step(model, inner, x)
        outer.sync()
        return flat(model), outer.state_digest(), outer

    idle, first, second = in_threads([partial(peer, c, r) for r, c in enumerate(FakeWorld(3).comms)])
    assert idle[1] == first[1] == second[1]
    assert torch.equal(idle[0], first[0])
    for _, _, outer in (idle, first, second):
        assert (outer.windows, outer.outer_step, outer.inner_step, outer.tokens) == (1, 1, H, 2 * H * 8)
        assert outer.stats.last is not None and outer.stats.last.weight == 2.0
    start = flat(net())
    ends = []
    for rank in (1, 2):
        model = net()
        inner = torch.optim.AdamW(model.parameters(), lr=0.01)
        for x in batches(rank, H):
            inner_step(model, inner, x)
        ends.append(flat(model))
    delta = start - (ends[0] + ends[1]) / 2
    torch.testing.assert_close(idle[0], start - 0.7 * 1.9 * delta, rtol=1e-5, atol=1e-6)


def test_all_weights_0_skips_the_outer_step() -> None:
    def peer(comm: FakeComm, rank: int) -> tuple[list[Tensor], list[str], DiLoCo]:
        model = net()
        inner = torch.optim.AdamW(model.parameters(), lr=0.01)
        outer = DiLoCo(comm, model, inner, sync_every=H)
        outer.sync()
        models, digests = [], []
        for trained in (True, False, True):
            for x in batches(rank, H) if trained else []:
                inner_step(model, inner, x)
            if not trained:
                with torch.no_grad():
                    model[0].weight.add_(1.0)  # no step of the inner optimizer: not a contribution
            outer.sync()
            models.append(flat(model))
            digests.append(outer.state_digest())
        return models, digests, outer

    (a, da, outer), (b, db, _) = in_threads([partial(peer, c, r) for r, c in enumerate(FakeWorld(2).comms)])
    assert torch.equal(a[0], a[1]) and torch.equal(a[2], b[2]) and da == db
    assert (outer.windows, outer.outer_step, outer.stats.skipped) == (3, 2, 1)
    momentum = outer.state_dict()["buffers"]["momentum_buffer"]
    assert momentum.abs().sum() > 0  # not touched by the window that was skipped


def test_stats_say_what_happened() -> None:
    def peer(comm: FakeComm, rank: int) -> DiLoCo:
        model = nn.ParameterDict({"w": nn.Parameter(torch.zeros(4))})
        inner = sgd(model, lr=1.0)
        outer = DiLoCo(comm, model, inner, sync_every=2)
        outer.sync()
        for _ in range(2):
            model["w"].grad = torch.tensor([[3.0, 0.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0]][rank])
            inner.step()
        time.sleep(0.15 * rank)
        outer.sync()
        return outer

    one, other = in_threads([partial(peer, comm, rank) for rank, comm in enumerate(FakeWorld(2).comms)])
    for outer, length in ((one, 6.0), (other, 8.0)):
        last = outer.stats.last
        assert last is not None and (last.number, last.outer_step, last.steps, last.weight) == (1, 1, 2, 2.0)
        assert (last.delta_norm, last.average_norm) == (length, 5.0)  # of [6 0] and [0 8]: [3 4]
        assert (outer.stats.peers, last.contributors, last.attempts, last.staleness) == (2, (0, 1), 1, 0)
        assert (outer.stats.windows, outer.stats.skipped, outer.stats.synchronizations) == (1, 0, 1)
    assert one.stats.last is not None and one.stats.wait_s == one.stats.last.wait_s > 0.14


# ---- joiners, with real communicators ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", OUTER)
def test_joiner_receives_the_whole_outer_state(kind: str) -> None:
    """Two peers begin; a third one, with other initial values and another learning rate, joins them."""
    begun = threading.Event()

    def peer(rank: int, master: pccl.Master) -> tuple[dict[int, str], DiLoCo, int]:
        model = net(rank)
        inner = torch.optim.AdamW(model.parameters(), lr=0.01)
        digests: dict[int, str] = {}
        if rank == 2:
            begun.wait(20)
        with pccl.Communicator(master.address, min_islands=2) as comm:
            outer = DiLoCo(comm, model, inner, sync_every=H, outer_optimizer=OUTER[kind])
            outer.outer_optimizer.param_groups[0]["lr"] = 0.7 if rank == 2 else 0.3
            with outer:
                joined_at = outer.inner_step
                for x in batches(rank, 8 * H - joined_at):
                    inner_step(model, inner, x)
                    if outer.pending_steps:
                        continue
                    digests[outer.windows] = outer.state_digest()
                    if outer.windows == 3:
                        begun.set()
                        while not master.status()["waiting"]:
                            time.sleep(0.001)
            return digests, outer, joined_at

    with pccl.Master() as master:
        results = in_threads([partial(peer, rank, master) for rank in range(3)])
    assert [joined_at for _, _, joined_at in results] == [0, 0, 4 * H]  # window 4's commit said that it waits
    assert [list(digests) for digests, _, _ in results] == [[*range(1, 9)], [*range(1, 9)], [*range(5, 9)]]
    reference = results[0][1].state_dict()["buffers"]
    for digests, outer, _ in results:
        assert all(digest == results[0][0][window] for window, digest in digests.items())
        assert outer.stats.repairs == 0
        assert outer.outer_optimizer.param_groups[0]["lr"] == 0.3
        for key, value in outer.state_dict()["buffers"].items():
            assert torch.equal(value, reference[key])


def test_another_model_or_optimizer_is_refused_on_all_peers() -> None:
    def peer(rank: int, address: str) -> str:
        model = nn.Linear(2, 3, bias=False) if rank else nn.Linear(3, 2, bias=False)  # as many elements
        with pccl.Communicator(address, min_islands=2) as comm:
            outer = DiLoCo(comm, model, sgd(model), sync_every=H)
            with pytest.raises(pccl.MismatchError) as caught:
                outer.sync()
            return str(caught.value)

    with pccl.Master() as master:
        texts = in_threads([partial(peer, rank, master.address) for rank in range(2)])
    assert all("outer parameters" in text for text in texts)


@pytest.mark.parametrize("wrong", ["model", "sampler"])
def test_a_joiner_with_another_model_is_refused_and_the_others_go_on(wrong: str) -> None:
    begun = threading.Event()

    def peer(rank: int, master: pccl.Master) -> tuple[int, str]:
        fits = rank < 2 or wrong != "model"
        model = net(rank) if fits else nn.Linear(8, 4, bias=False)  # as many elements
        inner = sgd(model)
        data = ElasticSampler(60, global_batch=12, seed=int(rank == 2))
        if rank == 2:
            begun.wait(20)
        with pccl.Communicator(master.address, min_islands=2) as comm:
            outer = DiLoCo(comm, model, inner, sync_every=H, sampler=data if wrong == "sampler" else None)
            if rank == 2:
                with pytest.raises(pccl.MismatchError, match="differ in names: 'outer parameters") as caught:
                    outer.sync()
                return 0, str(caught.value)
            with outer:
                for x in batches(rank, 8 * H):
                    inner_step(model, inner, x)
                    if outer.windows == 3 and not begun.is_set() and rank == 0:
                        begun.set()
                        while not master.status()["waiting"]:
                            time.sleep(0.001)
                outer.finalize()
            return outer.windows, outer.state_digest()

    with pccl.Master() as master:
        one, other, _ = in_threads([partial(peer, rank, master) for rank in range(3)])
    assert one == other and one[0] >= 8


def test_what_is_shared_and_what_is_not() -> None:
    """A newcomer takes over nothing else: no data position, no random numbers, no inner optimizer."""
    model = net()
    outer = DiLoCo(alone(), model, torch.optim.AdamW(model.parameters()), sync_every=H)
    names = {name.partition(", model and")[0] for name in outer._outer.shared.tensors}
    counts = {"counters", "phase", "outer steps of fragments", "norm of the last outer step"}
    assert names == {"outer parameters", "outer momentum_buffer", "outer learning rates", *counts}


def test_verification_mends_a_peer_that_differs() -> None:
    def peer(rank: int, address: str) -> tuple[list[str], int]:
        model = net()
        inner = sgd(model)
        digests = []
        with pccl.Communicator(address, min_islands=3) as comm:
            with DiLoCo(comm, model, inner, sync_every=H, verify_every=2) as outer:
                for step, x in enumerate(batches(rank, 6 * H)):
                    if rank == 1 and step == 2 * H + 1:
                        outer._outer.parameters[3] += 1.0  # as a faulty memory would
                    inner_step(model, inner, x)
                    if not outer.pending_steps:
                        digests.append(outer.state_digest())
            return digests, outer.stats.repairs

    with pccl.Master() as master:
        (a, ra), (b, rb), (c, rc) = in_threads([partial(peer, r, master.address) for r in range(3)])
    assert a == c and (ra, rb, rc) == (0, 1, 0)
    assert [x == y for x, y in zip(a, b, strict=True)] == [True, True, False, True, True, True]
