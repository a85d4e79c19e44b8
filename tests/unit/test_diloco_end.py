"""The end of training with DiLoCo: peers with different numbers of steps leave with equal bits."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import pccl_py as pccl
from pccl_py.optim import DiLoCo
from tests.fakes import FakeWorld
from tests.threads import in_threads
from tests.toy import OUTER, H, alone, batches, flat, inner_step, net, reference, sgd

Ending = tuple[Tensor, Tensor, int, int]  # before finalize(), after it, steps pending before it, windows


def train(comm: Any, peer: int, steps: int, *, outer: str = "nesterov") -> Ending:
    model = net()
    inner = torch.optim.AdamW(model.parameters(), lr=0.01)
    with DiLoCo(comm, model, inner, sync_every=H, outer_optimizer=OUTER[outer]) as diloco:
        for x in batches(peer, steps):
            inner_step(model, inner, x)
        before, pending = flat(model), diloco.pending_steps
        diloco.finalize()
    assert diloco.pending_steps == 0
    return before, flat(model), pending, diloco.windows


def train_all(steps: list[int], **options: Any) -> list[Ending]:
    world = FakeWorld(len(steps))
    jobs = [partial(train, world.comms[p], p, n, **options) for p, n in enumerate(steps)]
    return in_threads(jobs)


@pytest.mark.parametrize(
    "steps", [[2 * H, 2 * H, 2 * H], [H + 1, H + 3, H], [1, 2, 3], [0, 0, 0], [0, H, 2 * H + 1]]
)
def test_all_end_with_equal_bits(steps: list[int]) -> None:
    endings = train_all(steps)
    assert all(torch.equal(after, endings[0][1]) for _, after, _, _ in endings)
    assert len({windows for *_, windows in endings}) == 1


def test_the_last_window_is_the_mean_of_those_who_trained_in_it() -> None:
    endings = train_all([H, H + 1, H + 3], outer="plain")
    (start, after, _, _), *trained = endings
    assert [pending for _, _, pending, _ in endings] == [0, 1, 3]
    mean = torch.stack([start - before for before, _, _, _ in trained]).mean(0)
    torch.testing.assert_close(after, start - 0.7 * mean, rtol=1e-6, atol=1e-7)


def test_who_is_through_waits_for_the_others_without_weight() -> None:
    """The short peer's models follow the long one's, which goes on as if it were alone."""
    endings = train_all([0, 3 * H])
    assert endings[0][3] == 4  # three windows, and one that says that nothing is left
    for _, after, _, _ in endings:
        assert torch.equal(after, train(alone(), 1, 3 * H)[1])
    assert torch.equal(train(alone(), 0, 3 * H)[1], reference(1, 3, OUTER["nesterov"]))


def test_interrupted_end_is_taken_up_again() -> None:
    comm = alone()
    model = net()
    inner = sgd(model)
    with DiLoCo(comm, model, inner, sync_every=H) as outer:
        inner_step(model, inner, batches(0, 1)[0])
        for error in (pccl.OperationTimeout("slow"), pccl.MasterLost("gone")):
            comm.failures = [error]
            with pytest.raises(type(error)):
                outer.finalize()
            assert outer.pending_steps == 1
        comm.waiting, comm.calls = 1, []
        outer.finalize()
    assert comm.calls == ["all_reduce", "update_topology", "sync_shared_state"]
    assert outer.pending_steps == 0 and outer.windows == 1


def test_end_before_the_beginning_is_refused() -> None:
    model = net()
    with pytest.raises(pccl.UsageError, match="before the first sync"):
        DiLoCo(alone(), model, sgd(model), sync_every=H).finalize()


def test_real_peers_end_with_equal_bits_though_one_leaves_early() -> None:
    def peer(rank: int, address: str) -> Tensor | None:
        with pccl.Communicator(address, min_islands=3) as comm:
            if rank:
                return train(comm, rank, 5 * H + rank)[1]
            model = net()
            inner = sgd(model)
            with DiLoCo(comm, model, inner, sync_every=H):
                for x in batches(rank, 2 * H + 1):
                    inner_step(model, inner, x)
            return None

    with pccl.Master() as master:
        _, one, other = in_threads([partial(peer, rank, master.address) for rank in range(3)])
    assert torch.equal(one, other)
