"""inner_state_on_join="copy": joiners go on with the inner optimizer's state of a member."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest
import torch

import pccl_py as pccl
from pccl_py.optim import DiLoCo, StreamingDiLoCo
from pccl_py.optim.inner_state import pairs
from tests.fakes import FakeWorld
from tests.threads import in_threads
from tests.toy import H, alone, batches, flat, inner_step, net

QUIET = pccl.Config(heartbeat_ms=200, heartbeats_missed_max=50)


def moments(inner: torch.optim.Optimizer) -> torch.Tensor:
    """All of AdamW's state, by parameter and name."""
    parts = [value for p in inner.param_groups[0]["params"] for _, value in sorted(inner.state[p].items())]
    return torch.cat([part.reshape(-1) for part in parts])


def test_joiners_take_turns_at_members() -> None:
    assert pairs([9, 7, 8], [1, 3]) == [(1, 7), (3, 8), (1, 9)]
    assert pairs([7], []) == [] and pairs([], [1]) == []


def founder(rank: int, address: str, late: threading.Event, seen: dict[Any, Any], options: Any) -> None:
    model = net(rank)
    inner = torch.optim.AdamW(model.parameters(), lr=0.01 + rank / 1000)
    with pccl.Communicator(address, min_islands=2, config=QUIET) as comm:
        with options["kind"](comm, model, inner, sync_every=H, inner_state_on_join="copy") as outer:
            for step, x in enumerate(batches(rank, 400 * H)):
                inner_step(model, inner, x)
                if step == 3 * H:
                    late.set()
                copied = outer.stats.last is not None and len(outer.stats.last.contributors) == 3
                if copied:
                    break
                if not outer.pending_steps:
                    seen.setdefault(comm.id, []).append((moments(inner), inner.param_groups[0]["lr"]))


def joiner(address: str, late: threading.Event, seen: dict[Any, Any], options: Any) -> None:
    assert late.wait(20)
    model = net(7)
    inner = torch.optim.AdamW(model.parameters(), lr=0.5, **options.get("other", {}))
    with pccl.Communicator(address, config=QUIET) as comm:
        with options["kind"](comm, model, inner, sync_every=H, inner_state_on_join="copy") as outer:
            seen["joined"] = outer.windows
            if options.get("other"):
                seen["state"] = len(inner.state)
            else:
                seen["state"] = moments(inner), inner.param_groups[0]["lr"]
            for x in batches(7, 2 * H):
                inner_step(model, inner, x)


@pytest.mark.parametrize("kind", [DiLoCo, StreamingDiLoCo])
def test_a_joiner_goes_on_with_a_member_s_moments(kind: Any) -> None:
    late, seen, options = threading.Event(), dict[Any, Any](), {"kind": kind}
    with pccl.Master(config=QUIET) as master:
        jobs = [partial(founder, r, master.address, late, seen, options) for r in range(2)]
        in_threads([*jobs, partial(joiner, master.address, late, seen, options)])
    values, rate = seen["state"]
    known = seen[min(key for key in seen if isinstance(key, int))]  # the first member gives
    assert any(torch.equal(values, value) and rate == lr for value, lr in known) and bool(values.any())


def test_another_inner_optimizer_begins_with_zeros() -> None:
    late, seen = threading.Event(), dict[Any, Any]()
    options = {"kind": DiLoCo, "other": {"amsgrad": True}}
    with pccl.Master(config=QUIET) as master:
        jobs = [partial(founder, r, master.address, late, seen, options) for r in range(2)]
        in_threads([*jobs, partial(joiner, master.address, late, seen, options)])
    assert seen["state"] == 0


def test_nobody_has_a_state() -> None:
    """A run that begins: nothing is copied, and values do not change."""

    def peer(comm: Any, rank: int) -> Any:
        model = net()
        inner = torch.optim.AdamW(model.parameters(), lr=0.01)
        with DiLoCo(comm, model, inner, sync_every=H, inner_state_on_join="copy"):
            for x in batches(rank, H):
                inner_step(model, inner, x)
        return flat(model)

    one, other = in_threads([partial(peer, c, r) for r, c in enumerate(FakeWorld(2).comms)])
    assert torch.equal(one, other)


def test_a_state_that_cannot_travel_is_refused_at_once() -> None:
    model = net()
    stranger = torch.nn.Parameter(torch.zeros(3))
    inner = torch.optim.AdamW([*model.parameters(), stranger])
    with pytest.raises(pccl.UsageError, match="not the model's"):
        DiLoCo(alone(), model, inner, sync_every=H, inner_state_on_join="copy")
