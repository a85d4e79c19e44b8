"""AsyncDiLoCo: its recursions literally, in one process; joiners, checkpoints, the end."""

from __future__ import annotations

import copy
import threading
import time
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pccl_py as pccl
from pccl_py.optim import AsyncDiLoCo, DelayedNesterov, DiLoCo
from tests.fakes import FakeComm, FakeWorld
from tests.threads import in_threads
from tests.toy import OUTER, H, alone, batches, flat, inner_step, net, sgd

Array = np.ndarray[Any, Any]


def window(start: Array, peer: int, number: int, windows: int) -> Array:
    """Where a peer gets in its window from there, by SGD."""
    model = net()
    torch.nn.utils.vector_to_parameters(torch.from_numpy(start).float(), model.parameters())
    inner = sgd(model)
    for x in batches(peer, windows * H)[number * H : (number + 1) * H]:
        inner_step(model, inner, x)
    return flat(model).double().numpy()


def literal(
    peers: int, windows: int, rule: Any, *, ahead: float = 0.0, look: bool = False
) -> tuple[list[Array], Array]:
    """theta after each window, and after finalize(). rule(theta, g, last update) -> theta. look: windows
    start where the rule would lead with the own delta of the last one."""
    theta = flat(net()).double().numpy()
    thetas, pending, update = [], None, np.zeros_like(theta)
    own = [np.zeros_like(theta) for _ in range(peers)]
    for number in range(windows):
        starts = [theta - ahead * delta for delta in own]
        if look and number:
            starts = [copy.deepcopy(rule)(theta, delta, 0 * theta) for delta in own]
        own = [start - window(start, p, number, windows) for p, start in enumerate(starts)]
        if pending is not None:
            new = rule(theta, pending, update)
            theta, update = new, (new - theta) * (not look)
        pending = np.mean(own, axis=0)
        thetas.append(theta)
    return thetas, rule(theta, pending, update)


def train(comm: Any, peer: int, windows: int, **options: Any) -> tuple[list[Tensor], Tensor, str]:
    """Outer parameters after each window, the model at the end."""
    model = net()
    inner = sgd(model)
    thetas = []
    with AsyncDiLoCo(comm, model, inner, sync_every=H, **options) as outer:
        for x in batches(peer, windows * H):
            inner_step(model, inner, x)
            if not outer.pending_steps:
                thetas.append(torch.cat([t.reshape(-1) for t in outer.outer_parameters().values()]))
        outer.finalize()
    return thetas, flat(model), outer.state_digest()


def check(
    peers: int, windows: int, rule: Any, *, ahead: float = 0.0, look: bool = False, **options: Any
) -> None:
    world = FakeWorld(peers)
    results = in_threads([partial(train, c, p, windows, **options) for p, c in enumerate(world.comms)])
    wanted, end = literal(peers, windows, rule, ahead=ahead, look=look)
    for thetas, model, digest in results:
        assert len(thetas) == windows
        for found, theta in zip(thetas, wanted, strict=True):
            np.testing.assert_allclose(found.numpy(), theta, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(model.numpy(), end, rtol=1e-3, atol=1e-4)
        assert torch.equal(model, results[0][1]) and digest == results[0][2]


class Nesterov:
    def __init__(self, lr: float = 0.7, mu: float = 0.9, gap: bool = False) -> None:
        self.lr, self.mu, self.gap = lr, mu, gap
        self.m: Any = 0.0

    def __call__(self, theta: Array, g: Array, update: Array) -> Array:
        if self.gap:
            g = g / (1 + np.linalg.norm(update) / np.linalg.norm(g))
        self.m = self.mu * self.m + g
        return theta - self.lr * (g + self.mu * self.m)


@pytest.mark.parametrize("peers", [1, 3])
def test_twenty_windows_are_the_delayed_recursion(peers: int) -> None:
    check(peers, 20, lambda theta, g, update: theta - 0.7 * g)


def test_any_outer_optimizer_is_one_window_late() -> None:
    check(2, 8, Nesterov(0.3, 0.6), outer_optimizer=partial(
        torch.optim.SGD, lr=0.3, momentum=0.6, nesterov=True))  # fmt: skip


def test_gap_penalty() -> None:
    outer = partial(torch.optim.SGD, lr=0.7, momentum=0.9, nesterov=True)
    check(2, 20, Nesterov(gap=True), staleness="gap", lookahead=False, outer_optimizer=outer)


@pytest.mark.parametrize("peers", [1, 3])
def test_lookahead_starts_where_the_own_delta_leads(peers: int) -> None:
    check(peers, 20, Nesterov(0.5, gap=True), look=True, staleness="gap")


def test_lookahead_with_any_outer_optimizer() -> None:
    check(2, 8, Nesterov(0.7, 0.0), look=True, lookahead=True)


@pytest.mark.parametrize("outer", OUTER)
def test_lookahead_of_one_peer_is_synchronous_diloco(outer: str) -> None:
    """Its own delta is the average, so that every window starts where the outer step will lead."""
    ends = []
    for kind, options in ((DiLoCo, {}), (AsyncDiLoCo, {"lookahead": True})):
        model = net()
        inner = sgd(model)
        with kind(alone(), model, inner, sync_every=H, outer_optimizer=OUTER[outer], **options) as peer:
            for x in batches(0, 6 * H):
                inner_step(model, inner, x)
            peer.finalize()
        ends.append(flat(model))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-5)


def test_a_delta_that_is_not_finite_leads_nowhere() -> None:
    model = net()
    inner = sgd(model)
    with AsyncDiLoCo(alone(), model, inner, sync_every=1, staleness="gap", non_finite="skip") as outer:
        for bad in (False, True, False, False):
            inner.zero_grad()
            model(torch.ones(1, 3)).sum().backward()
            if bad:
                model[0].weight.grad.fill_(torch.nan)
            inner.step()
            assert bool(torch.isfinite(flat(model)).all())
        outer.finalize()
    assert bool(torch.isfinite(flat(model)).all()) and outer.outer_step == 3


def test_eager_starts_ahead_by_its_own_part() -> None:
    check(2, 20, lambda theta, g, update: theta - 0.7 * g, ahead=0.7 / 2, staleness="eager")


def test_eager_is_the_paper_s_recursion_without_momentum() -> None:
    """theta_i <- theta_i - lr ((own_t - own_{t-1}) / P + g_{t-1}), with a theta_i of its own on each peer."""
    peers, windows, lr = 2, 10, 0.7
    start = flat(net()).double().numpy()
    theta = [start.copy() for _ in range(peers)]
    own, mean = [np.zeros_like(start)] * peers, np.zeros_like(start)
    for number in range(windows):
        fresh = [theta[p] - window(theta[p], p, number, windows) for p in range(peers)]
        theta = [theta[p] - lr * ((fresh[p] - own[p]) / peers + mean) for p in range(peers)]
        own, mean = fresh, np.mean(fresh, axis=0)

    def peer(comm: FakeComm, rank: int) -> Tensor:
        model = net()
        inner = sgd(model)
        with AsyncDiLoCo(comm, model, inner, sync_every=H, staleness="eager"):
            for x in batches(rank, windows * H):
                inner_step(model, inner, x)
        return flat(model)

    for rank, end in enumerate(
        in_threads([partial(peer, c, r) for r, c in enumerate(FakeWorld(peers).comms)])
    ):
        np.testing.assert_allclose(end.numpy(), theta[rank], rtol=1e-3, atol=1e-4)


def test_delayed_nesterov() -> None:
    class Delayed:
        m: Any = 0.0
        b: Any = 0.0
        count = 0

        def __call__(self, theta: Array, g: Array, update: Array) -> Array:
            self.b, self.count = self.b + g, self.count + 1
            theta = theta - 0.7 * g / 2
            if self.count % 2 == 0:
                self.m = 0.9 * self.m + self.b / 2
                theta, self.b = theta - 0.7 * 0.9 * self.m, 0.0
            return theta

    check(2, 20, Delayed(), staleness="delayed_nesterov")


def test_delayed_nesterov_in_each_step_is_nesterov() -> None:
    ends = []
    for kind in (partial(DelayedNesterov, every=1), OUTER["nesterov"]):
        parameter = torch.nn.Parameter(torch.ones(5))
        optimizer = kind([parameter], lr=0.7, momentum=0.9)
        for step in range(6):
            parameter.grad = torch.full((5,), float(step - 2))
            optimizer.step()
        ends.append(parameter.detach())
    torch.testing.assert_close(ends[0], ends[1])


def test_wrong_staleness() -> None:
    model = net()
    with pytest.raises(pccl.UsageError, match="staleness='late'"):
        AsyncDiLoCo(alone(), model, sgd(model), sync_every=H, staleness="late")  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [[0, 0], [H, H], [2 * H + 1, 2 * H + 3], [1, 3 * H], [0, 5]])
def test_all_end_with_equal_bits(steps: list[int]) -> None:
    def peer(comm: FakeComm, rank: int) -> tuple[Tensor, str]:
        model = net()
        inner = sgd(model)
        with AsyncDiLoCo(comm, model, inner, sync_every=H) as outer:
            for x in batches(rank, steps[rank]):
                inner_step(model, inner, x)
            outer.finalize()
        return flat(model), outer.state_digest()

    (a, da), (b, db) = in_threads([partial(peer, c, r) for r, c in enumerate(FakeWorld(2).comms)])
    assert torch.equal(a, b) and da == db
    if max(steps):
        assert not torch.equal(a, flat(net())), "the last average was dropped"


# ---- the average that waits --------------------------------------------------------------------------------


@pytest.mark.parametrize("staleness", ["none", "gap", "eager", "delayed_nesterov"])
@pytest.mark.parametrize("at", [0, 2, H, H + 1, 2 * H, 3 * H + 3])
def test_save_and_load_anywhere_goes_on_bit_for_bit(staleness: Any, at: int) -> None:
    saved: list[Any] = [None, None]

    def play(again: bool, comm: FakeComm, rank: int) -> tuple[Tensor, str]:
        model = net()
        inner = sgd(model)
        outer = AsyncDiLoCo(comm, model, inner, sync_every=H, staleness=staleness)
        if again:
            model.load_state_dict(saved[rank][0])
            outer.load_state_dict(saved[rank][1])
        with outer:
            for step, x in enumerate(batches(rank, 6 * H)):
                if step == at and not again:
                    model_now = {k: v.clone() for k, v in model.state_dict().items()}
                    saved[rank] = model_now, outer.state_dict()
                if step >= at or not again:
                    inner_step(model, inner, x)
            outer.finalize()
        return flat(model), outer.state_digest()

    through = in_threads([partial(play, False, c, r) for r, c in enumerate(FakeWorld(2).comms)])
    again = in_threads([partial(play, True, c, r) for r, c in enumerate(FakeWorld(2).comms)])
    assert torch.equal(through[0][0], again[0][0]) and torch.equal(again[0][0], again[1][0])
    assert len({digest for _, digest in [*through, *again]}) == 1


def test_the_average_that_waits_is_hashed_and_given_to_joiners() -> None:
    def peer(comm: FakeComm, rank: int) -> tuple[list[str], Any]:
        model = net()
        inner = sgd(model)
        with AsyncDiLoCo(comm, model, inner, sync_every=H) as outer:
            for x in batches(rank, H):
                inner_step(model, inner, x)
            before = outer.state_digest()
            outer.drain()
            return [before, outer.state_digest()], outer.state_dict()

    (a, saved), (b, _) = in_threads([partial(peer, c, r) for r, c in enumerate(FakeWorld(2).comms)])
    assert a == b and a[0] != a[1]

    def fresh(comm: FakeComm, rank: int) -> tuple[str, Tensor]:
        model = net(rank)
        inner = sgd(model)
        outer = AsyncDiLoCo(comm, model, inner, sync_every=H)
        if rank:
            outer.load_state_dict(saved)
        outer.sync()
        digest = outer.state_digest()
        outer.finalize()
        return digest, flat(model)

    results = in_threads([partial(fresh, c, r) for r, c in enumerate(FakeWorld(3).comms)])
    for digest, model in results:
        assert digest == a[1]
        assert torch.equal(model, results[0][1])


@pytest.mark.parametrize("staleness", ["none", "gap"])
def test_joiner_gets_into_the_pipeline_with_one_synchronization(staleness: Any) -> None:
    begun = threading.Event()

    def peer(rank: int, master: pccl.Master) -> tuple[dict[int, str], AsyncDiLoCo]:
        model = net(rank)
        inner = sgd(model)
        digests: dict[int, str] = {}
        if rank == 2:
            begun.wait(20)
        with pccl.Communicator(master.address, min_islands=2) as comm:
            with AsyncDiLoCo(comm, model, inner, sync_every=H, staleness=staleness) as outer:
                for x in batches(rank, 100 * H):
                    inner_step(model, inner, x)
                    if outer.pending_steps:
                        continue
                    digests[outer.windows] = outer.state_digest()
                    if outer.windows == 3 and rank < 2:
                        begun.set()
                        while not master.status()["waiting"]:
                            time.sleep(0.001)
                    if outer.windows == 9:
                        break
                outer.finalize()
            digests[-1] = outer.state_digest()
            return digests, outer

    with pccl.Master() as master:
        results = in_threads([partial(peer, rank, master) for rank in range(3)])
    for digests, outer in results:
        assert all(digest == results[0][0][window] for window, digest in digests.items())
        assert outer.stats.repairs == 0
    assert results[2][1].stats.synchronizations == 1 and len(results[2][0]) > 3
    assert results[0][1].stats.last is not None and len(results[0][1].stats.last.contributors) == 3
