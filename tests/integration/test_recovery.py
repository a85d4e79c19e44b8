"""Stages between peers: a pipeline whose middle process is killed, and what does not agree."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pccl_py import Cancelled, Communicator, Master, MismatchError, PeerLost, UsageError
from pccl_py.recovery import receive_stage, recover_stage, send_stage
from tests.conftest import Spawn

from .peers import together

PEER = "tests.integration.recovery_peer"


def events(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    text, _ = process.communicate(timeout=100)
    assert process.returncode == 0, text
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def one(found: list[dict[str, Any]], event: str) -> dict[str, Any]:
    (value,) = (e for e in found if e["event"] == event)
    return value


@pytest.mark.deadline(200)
@pytest.mark.parametrize("killed_replacements", [pytest.param(0, marks=pytest.mark.nightly), 1])
def test_a_killed_stage_is_rebuilt_and_training_goes_on(
    master: Master, spawn: Spawn, killed_replacements: int
) -> None:
    """SIGKILL in the middle stage's step, then in the middle of a recovery; the next one takes over."""
    first, middle, last = (
        spawn("-m", PEER, master.address, str(i), "--die-at", str(30 if i == 1 else -1)) for i in range(3)
    )
    assert middle.wait(100) == -signal.SIGKILL
    for _ in range(killed_replacements):
        half = spawn("-m", PEER, master.address, "1", "--replaces", "--dies-halfway")
        assert half.wait(100) == -signal.SIGKILL
    replacement = spawn("-m", PEER, master.address, "1", "--replaces")
    said = [events(process) for process in (first, replacement, last)]
    below, above, rebuilt = one(said[0], "helps"), one(said[2], "helps"), one(said[1], "recovered")
    assert all(
        sum(e["event"] == "again" for e in found) == killed_replacements for found in (said[0], said[2])
    )

    low, high = below["counts"], above["counts"]
    assert low > 0 and high > 0 and rebuilt["weights"] == [low, high]
    for name in ("weight", "bias"):
        mean = (low * np.array(below[name]) + high * np.array(above[name])) / (low + high)
        np.testing.assert_allclose(np.array(rebuilt[name]), mean, rtol=1e-6, atol=1e-7)
    assert rebuilt["seen"] == (above if high > low else below)["seen"]
    assert (below["seen"], above["seen"]) == (31, 30)
    assert rebuilt["rate"] == pytest.approx(0.055)

    losses = [e["value"] for e in said[2] if e["event"] == "loss"]
    assert len(losses) == 30 + 40
    fresh, before, after, end = losses[0], losses[29], losses[30], losses[-1]
    assert end < before < after < fresh
    assert one(said[1], "end")["seen"] == rebuilt["seen"] + 40


class Odd(nn.Module):
    """Entries of all kinds: shapes of no and of zero elements, 16 bits, bools, a transposed one."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(value))
        self.rough = nn.Parameter(torch.full((3, 5), value, dtype=torch.bfloat16))
        self.turned = nn.Parameter(torch.full((4, 2), value).t())
        self.register_buffer("none", torch.zeros(0, 7))
        self.register_buffer("mask", torch.tensor([True, False, value > 1]))


def test_every_kind_of_entry_and_both_at_once(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        rank = comm.rank
        mine = Odd(float(1 + rank))
        if rank == 1:
            assert recover_stage(comm, mine, 1, [0, None, 2], tag=4) == (3.0, 1.0)
            assert mine.scale == 1.5 and torch.all(mine.rough == 1.5) and torch.all(mine.turned == 1.5)
            assert mine.mask.tolist() == [True, False, False]  # of the neighbour that counts more
        else:
            send_stage(comm, mine, 1, weight=3.0 - rank, tag=4)
            assert torch.all(mine.turned == 1 + rank)
        comm.barrier()
        if rank == 0:  # an embedding's copy for the stage beside it, bit by bit
            send_stage(comm, {"embedding": torch.arange(6.0).view(2, 3)}, 1, weight=0)
        elif rank == 1:
            copy, weight = receive_stage(comm, {"embedding": torch.zeros(2, 3)}, 0)
            assert weight == 0 and torch.equal(copy["embedding"], torch.arange(6.0).view(2, 3))
        comm.barrier()

    together(master.address, 3, play)


def test_without_a_neighbour_nothing_is_rebuilt(master: Master) -> None:
    """The stage below leaves before it has sent anything: the one above hears of it, however late it is."""
    failed = threading.Event()

    def play(comm: Communicator, index: int) -> None:
        below, newcomer, above = peers = comm.peers()
        comm.barrier()  # all have seen who is there before one goes
        mine = nn.Linear(30, 30)
        before = mine.weight.detach().clone()
        if comm.id == below.id:
            return
        if comm.id == newcomer.id:
            with pytest.raises(PeerLost, match=f"peer {below.id}"):
                recover_stage(comm, mine, 1, peers)
            failed.set()
        else:
            assert failed.wait(30)
            with pytest.raises(Cancelled):
                send_stage(comm, mine, newcomer, weight=1.0)
        assert torch.equal(mine.weight, before)
        comm.barrier()

    together(master.address, 3, play)


def test_what_does_not_agree_leaves_the_stage_as_it_was(master: Master) -> None:
    def rebuild(comm: Communicator, match: str, kind: type[Exception] = UsageError) -> None:
        mine = nn.Linear(3, 4)
        before = mine.weight.detach().clone()
        with pytest.raises(kind, match=match):
            recover_stage(comm, mine, 1, [0, None, 2])
        assert torch.equal(mine.weight, before)

    def play(comm: Communicator, index: int) -> None:
        rank = comm.rank
        if rank == 1:
            rebuild(comm, "other names, shapes or dtypes")  # 12 + 4 elements, as expected
            comm.barrier()
            rebuild(comm, "weight of stage 2 is nan|weight of stage 0 is nan")
            comm.barrier()
            rebuild(comm, "elements|x uint8", MismatchError)
            with pytest.raises(UsageError, match="first of 3"):
                recover_stage(comm, nn.Linear(3, 4), 0, [None, 1, 2])
            with pytest.raises(UsageError, match="a neighbour of stage 1 is None"):
                recover_stage(comm, nn.Linear(3, 4), 1, [None, None, 2])
        else:
            turned = {"weight": torch.zeros(3, 4), "bias": torch.zeros(4)}
            send_stage(comm, turned, 1, weight=1.0)
            comm.barrier()
            send_stage(comm, nn.Linear(3, 4), 1, weight=None if rank else float("nan"))  # type: ignore[arg-type]
            comm.barrier()
            with pytest.raises((MismatchError, Cancelled)):  # who comes second finds that the other gave up
                send_stage(comm, nn.Linear(3, 5), 1, weight=1.0)
        comm.barrier()

    together(master.address, 3, play)
