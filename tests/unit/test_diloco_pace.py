"""Peers of different speeds: dynamic steps, a quorum with a grace window, spares, and going politely."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import pccl_py as pccl
from pccl_py.optim import DiLoCo, LocalSGD
from pccl_py.optim.pace import Pace, PaceRules
from tests.conftest import ROOT
from tests.fakes import FakeWorld
from tests.threads import in_threads
from tests.toy import H, alone, batches, flat, inner_step, net, sgd

# ---- the rules ---------------------------------------------------------------------------------------------


def test_steps_in_proportion_to_speed() -> None:
    rules = PaceRules(20, dynamic=True, least=3)
    speeds = [10.0, 5.0, 1.0]
    assert [rules.steps_at(speed, speeds) for speed in speeds] == [20, 10, 3]
    assert rules.steps_at(0.0, speeds) == 20 and rules.steps_at(5.0, []) == 20
    assert PaceRules(20).steps_at(1.0, speeds) == 20


def test_a_quorum_ends_windows_by_speed_and_grace() -> None:
    rules = PaceRules(20, quorum=2, grace_s=0.5)
    assert rules.window_s([10.0, 5.0, 1.0]) == 20 / 5 + 0.5
    assert rules.window_s([10.0, 0.0, 0.0]) is None and PaceRules(20).window_s([1.0, 2.0]) is None
    assert PaceRules(20, quorum=9).window_s([10.0, 5.0]) == 4.0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"local_steps": "some"}, "'fixed' or 'dynamic'"),
        ({"min_steps": 0}, "min_steps=0"),
        ({"min_peers": 0}, "min_peers=0"),
        ({"grace_ms": -1}, "grace_ms=-1"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], text: str) -> None:
    model = net()
    with pytest.raises(pccl.UsageError, match=text):
        DiLoCo(alone(), model, sgd(model), sync_every=H, **options)


# ---- on slow and fast peers --------------------------------------------------------------------------------


class TimedWorld(FakeWorld):
    """Each peer has a clock of its own, which only its steps move; who meets waits for the last one."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.now = [0.0] * size

    def meet(self, rank: int, value: Any) -> list[Any]:
        met = super().meet(rank, (value, self.now[rank]))
        self.now[rank] = max(now for _, now in met)
        return [theirs for theirs, _ in met]

    def time(self, outer: Any, rank: int) -> None:
        """Before its first sync()."""
        outer._pace = Pace(outer._settings.pace, lambda: self.now[rank])


def until_loss(
    speeds: list[float], limit: float, kind: Any = LocalSGD, **options: Any
) -> list[tuple[float, int, Tensor, str]]:
    """(seconds, windows, model, digest) until peers that take so many seconds per step reach a loss."""
    world = TimedWorld(len(speeds))
    target = torch.linspace(-1, 1, 64)

    def peer(comm: Any, rank: int) -> tuple[float, int, Tensor, str]:
        model = torch.nn.ParameterDict({"w": torch.nn.Parameter(torch.zeros(64))})
        inner = torch.optim.SGD(model.parameters(), lr=0.02)
        done = 0.0
        outer = kind(comm, model, inner, sync_every=10, **options)
        world.time(outer, rank)
        with outer:
            while not done and outer.windows < 200:
                world.now[rank] += speeds[rank]
                model["w"].grad = model["w"].detach() - target
                before = outer.windows
                inner.step()
                if outer.windows > before:  # the shared parameters, so that all find the same
                    error = float((outer.outer_parameters()["w"] - target).square().mean())
                    done = world.now[rank] if error < limit else 0.0
            outer.finalize()
        return done, outer.windows, flat(model), outer.state_digest()

    return in_threads([partial(peer, c, r) for r, c in enumerate(world.comms)])


SPEEDS = [0.004, 0.004, 0.04]


@pytest.mark.parametrize(
    "options",
    [
        {"local_steps": "dynamic"},
        {"min_peers": 2, "grace_ms": 4},
        {"min_peers": 2, "grace_ms": 4, "weighting": "rarity"},
    ],
)
@pytest.mark.parametrize("kind", [LocalSGD, DiLoCo])
def test_a_slow_peer_holds_the_others_up_less(options: dict[str, Any], kind: Any) -> None:
    """Time to a loss against plain synchronous windows: a peer is ten times slower than the others."""
    plain = until_loss(SPEEDS, 0.02, kind)
    quick = until_loss(SPEEDS, 0.02, kind, **options)
    ratio = max(seconds for seconds, *_ in quick) / max(seconds for seconds, *_ in plain)
    assert ratio < 0.7
    for results in (plain, quick):
        for _, windows, model, digest in results:
            assert windows == results[0][1] and digest == results[0][3]
            assert torch.equal(model, results[0][2])


def test_who_is_late_keeps_its_progress_and_counts_later() -> None:
    """Deltas of 1 per step of the slow peer: nothing of them is lost."""
    world = TimedWorld(2)

    def peer(comm: Any, rank: int) -> tuple[float, list[float], int]:
        model = torch.nn.ParameterDict({"w": torch.nn.Parameter(torch.zeros(3))})
        inner = torch.optim.SGD(model.parameters(), lr=1.0)
        weights, steps = [], 0
        outer = LocalSGD(comm, model, inner, sync_every=4, min_peers=1)
        world.time(outer, rank)
        with outer:
            while outer.windows < 12:
                world.now[rank] += 0.03 if rank else 0.004
                model["w"].grad = torch.full((3,), -1.0 if rank else 0.0)
                before = outer.windows
                inner.step()
                steps += 1
                if outer.windows > before and outer.stats.last is not None:
                    weights.append(outer.stats.last.weight)
            outer.finalize()
        return float(outer.outer_parameters()["w"][0]), weights, steps

    (end, weights, _), (other, _, steps) = in_threads(
        [partial(peer, c, r) for r, c in enumerate(world.comms)]
    )
    assert end == other and weights[0] == 2.0 and 1.0 in weights, weights
    assert weights.count(2.0) <= 6
    assert end == pytest.approx(steps / 2, abs=2.0), "half a step for each of one of two peers"


def test_rare_ones_count_as_much_as_the_others() -> None:
    """FedFix keeps the expectation: a fast peer pushes by 1 in each window, a slow one by -1 in each of its
    own, which take several. Whenever it delivers, both have moved the parameters equally far."""
    world = TimedWorld(2)

    def peer(comm: Any, rank: int) -> list[tuple[int, float]]:
        model = torch.nn.ParameterDict({"w": torch.nn.Parameter(torch.zeros(3))})
        inner = torch.optim.SGD(model.parameters(), lr=0.25)
        found = []
        outer = LocalSGD(comm, model, inner, sync_every=4, min_peers=1, weighting="rarity")
        world.time(outer, rank)
        with outer:
            while outer.windows < 24:
                world.now[rank] += 0.02 if rank else 0.004
                model["w"].grad = torch.full((3,), 1.0 if rank else -1.0)
                before = outer.windows
                inner.step()
                if outer.windows > before and outer.stats.last is not None:
                    found.append((round(outer.stats.last.weight), outer.outer_parameters()["w"][0].item()))
            outer.finalize()
        return found

    fast, slow = in_threads([partial(peer, c, r) for r, c in enumerate(world.comms)])
    assert fast == slow
    together = [value for weight, value in fast if weight > 1]
    assert len(together) >= 2 and any(weight > 2 for weight, _ in fast)
    assert together == pytest.approx([0.0] * len(together), abs=1e-5)
    assert max(value for _, value in fast) > 0.9, "between them, the fast one is ahead"


# ---- spares ------------------------------------------------------------------------------------------------


def test_spare_holds_the_state_and_trains_when_one_is_gone() -> None:
    joined = threading.Barrier(3)

    def peer(rank: int, address: str) -> tuple[str, int, int]:
        model = net(rank)
        inner = sgd(model)
        with pccl.Communicator(address, min_islands=3) as comm:
            joined.wait(20)
            outer = DiLoCo(comm, model, inner, sync_every=H)
            with outer:
                if rank == 2:
                    assert outer.stand_by(2)
                    assert outer.stats.last is not None and outer.windows >= 3
                    shared = [p.reshape(-1) for p in outer.outer_parameters().values()]
                    assert torch.equal(flat(model), torch.cat(shared))
                began = outer.windows
                for x in batches(rank, 100 * H):
                    if outer.windows >= 8 or (rank == 1 and outer.windows == 3):
                        break
                    inner_step(model, inner, x)
                if rank == 1:
                    return "", 0, 0
                outer.finalize()
            return outer.state_digest(), began, outer.outer_step

    with pccl.Master() as master:
        one, _, spare = in_threads([partial(peer, rank, master.address) for rank in range(3)])
    assert one[0] == spare[0] and spare[1] in (4, 5)


def test_spare_ends_with_the_others() -> None:
    def peer(comm: Any, rank: int) -> tuple[Tensor, bool]:
        model = net(rank)
        inner = sgd(model)
        needed = False
        with DiLoCo(comm, model, inner, sync_every=H) as outer:
            if rank:
                needed = outer.stand_by(1)
            else:
                for x in batches(rank, 3 * H + 1):
                    inner_step(model, inner, x)
                outer.finalize()
        return flat(model), needed

    (one, _), (other, needed) = in_threads([partial(peer, c, r) for r, c in enumerate(FakeWorld(2).comms)])
    assert torch.equal(one, other) and not needed


# ---- going politely ----------------------------------------------------------------------------------------

PREEMPTED = """
import sys, time, torch
import pccl_py
from pccl_py.optim import DiLoCo
finish = sys.argv[2] == "finish"
model = torch.nn.Linear(3, 2)
inner = torch.optim.SGD(model.parameters(), lr=0.1)
with pccl_py.Communicator(sys.argv[1], min_islands=2) as comm:
    with DiLoCo(comm, model, inner, sync_every=10) as outer:
        outer.leave_on(finish=finish)
        while not outer.should_leave:
            time.sleep(0.02)
            inner.zero_grad()
            model(torch.ones(1, 3)).sum().backward()
            inner.step()
            print("step", outer.windows, outer.pending_steps, flush=True)
print("left", outer.windows, outer.pending_steps, flush=True)
"""


@pytest.mark.parametrize("how", ["finish", "drop"])
def test_sigterm_finishes_or_drops_the_window_and_leaves(how: str) -> None:
    with pccl.Master() as master:
        command = [sys.executable, "-c", PREEMPTED, master.address, how]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert process.stdout is not None
        try:
            with pccl.Communicator(master.address, min_islands=2) as comm:
                model = torch.nn.Linear(3, 2)
                inner = sgd(model)
                sizes = []
                with DiLoCo(comm, model, inner, sync_every=10) as outer:
                    while outer.windows < 5:
                        time.sleep(0.02)
                        inner.zero_grad()
                        model(torch.ones(1, 3)).sum().backward()
                        inner.step()
                        if outer.pending_steps == 3 and outer.windows == 2:
                            process.send_signal(signal.SIGTERM)
                        if not outer.pending_steps and outer.stats.last is not None:
                            sizes.append(outer.stats.last.weight)
            assert process.wait(20) == 0
            left = process.stdout.read().splitlines()[-1].split()
        finally:
            process.kill()
            process.stdout.close()
            process.wait(5)
    assert left[0] == "left"
    if how == "finish":
        assert left[1:] == ["3", "0"] and sizes == [2.0, 2.0, 2.0, 1.0, 1.0]
    else:
        assert left[1] == "2" and left[2] != "0" and sizes == [2.0, 2.0, 1.0, 1.0, 1.0]
