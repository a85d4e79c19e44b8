"""SIGTERM in the middle of a training: a last snapshot, complete and coded, then the end; a successor goes on
from exactly that step."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from pccl_py import Master
from pccl_py.checkpoint import folder
from pccl_py.state.preemption import STATUS
from tests.conftest import Spawn
from tests.integration.peers import PATIENT

from .conftest import free_keepers
from .gang import FOREVER, calm, kill_keeper, lines, rest, start, step_of


@pytest.fixture
def master() -> Iterator[Master]:
    with Master(config=PATIENT) as running:
        yield running
        free_keepers()


@pytest.mark.deadline(150)
def test_the_last_step_is_in_memory_and_a_successor_goes_on_from_it(spawn: Spawn, tmp_path: Path) -> None:
    wanted = calm(40)
    process = start(spawn, every=1000, steps=FOREVER, folder=tmp_path, save_every=1000)
    lines(process, lambda line: step_of(line, 5))
    process.send_signal(signal.SIGTERM)
    last = [one["step"] for one in rest(process) if "losses" in one]
    assert process.returncode == STATUS
    again = start(spawn, every=1000, steps=40, folder=tmp_path, save_every=1000)
    said = rest(again)
    first = said[0]
    # step() raised SystemExit before it could tell of the last one.
    assert first["source"] == "snapshot" and first["step"] == first["run"] == max([5, *last]) + 1
    assert first["at"] == first["step"]
    found = {one["step"]: one["bits"] for one in said if "losses" in one}
    assert first["bits"] == wanted.get(first["step"], first["bits"])
    assert again.returncode == 0 and said[-1] == {"end": True}
    assert {step: wanted[step] for step in found} == found
    assert folder.find(tmp_path, first["step"]).complete


@pytest.mark.deadline(150)
def test_a_handler_of_the_training_s_own_has_its_turn_and_the_memory_stays(spawn: Spawn) -> None:
    process = start(spawn, every=1000, steps=FOREVER, handler=True)
    lines(process, lambda line: step_of(line, 5))
    process.send_signal(signal.SIGTERM)
    said = rest(process)
    assert process.returncode == 0 and said[-1] == {"end": True}
    last = max(one["step"] for one in said if "losses" in one)
    first = rest(start(spawn, every=1000, steps=1))[0]
    assert (first["source"], first["step"], first["at"]) == ("snapshot", last, last)
    assert first["bits"] == next(one["bits"] for one in said if one.get("step") == last)


@pytest.mark.deadline(180)
@pytest.mark.parametrize("keeper_too", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_a_preempted_host_s_last_snapshot_is_coded_before_it_ends(
    master: Master, spawn: Spawn, keeper_too: bool
) -> None:
    """Trainer and keeper are gone then, as the machine is. Some schedulers tell every process of it."""
    peers = [
        start(
            spawn, rank=rank, master=master.address, parity=1, every=4, steps=FOREVER, prefix="h", founders=3
        )
        for rank in range(3)
    ]
    # Two losses where all three are at one step: then they are alike in every bit, and are not coded.
    for peer in peers:
        lines(peer, lambda line: line.get("losses", 0) > 0)
    if keeper_too:
        kill_keeper("h2", signal.SIGTERM)
    peers[2].send_signal(signal.SIGTERM)
    said = rest(peers[2])
    assert peers[2].returncode == STATUS
    kill_keeper("h2")
    successor = start(spawn, rank=2, master=master.address, parity=1, steps=1, prefix="new")
    first = lines(successor, lambda line: "source" in line)[0]
    told = [one["step"] for one in said if "losses" in one]
    assert first["source"] == "snapshot" and first["run"] == first["step"]
    assert not told or first["step"] == told[-1] + 1
    for peer in peers[:2]:
        peer.kill()


@pytest.mark.deadline(180)
def test_ranks_that_train_together_end_at_one_step(spawn: Spawn, tmp_path: Path) -> None:
    def gang(store: str, **options: Any) -> list[subprocess.Popen[str]]:
        common = {"world": 2, "store": tmp_path / store, "prefix": "r"} | options
        return [start(spawn, rank=rank, **common) for rank in range(2)]

    ranks = gang("first", every=1000, steps=FOREVER)
    for rank in ranks:
        lines(rank, lambda line: step_of(line, 5))
    ranks[1].send_signal(signal.SIGTERM)
    lines(ranks[1], lambda line: True)
    ranks[0].send_signal(signal.SIGTERM)
    for rank in ranks:
        rest(rank)
        assert rank.returncode == STATUS
    again = [rest(rank) for rank in gang("second", every=1000, steps=1)]
    assert [one[0]["source"] for one in again] == ["snapshot"] * 2
    assert again[0][0]["step"] == again[1][0]["step"] >= 6
    assert again[0][0]["bits"] == again[1][0]["bits"]


@pytest.mark.deadline(120)
def test_who_ends_no_step_is_ended_in_time_and_a_second_signal_at_once(spawn: Spawn) -> None:
    source = """
import sys, time, torch, pccl_py as pccl
weight = torch.nn.Parameter(torch.ones(3))
inner = torch.optim.SGD([weight], lr=0.1)
state = pccl.TrainState(model={"w": weight}, inner=inner)
with pccl.protect(state, sigterm_s=float(sys.argv[1])) as run:
    print("in", flush=True)
    while not run._preemption.asked:
        time.sleep(0.01)
    print("heard", flush=True)
    time.sleep(60)
"""
    late = spawn("-c", source, "0.3")
    twice = spawn("-c", source, "50")
    for process in (late, twice):
        assert process.stdout.readline() == "in\n"
        process.send_signal(signal.SIGTERM)
    assert late.wait(20) == STATUS
    assert twice.stdout.readline() == "heard\n"  # else two signals may come as one
    assert twice.poll() is None
    twice.send_signal(signal.SIGTERM)
    assert twice.wait(20) == -signal.SIGTERM


@pytest.mark.deadline(120)
def test_children_are_ended_by_it_as_ever(spawn: Spawn) -> None:
    source = """
import os, signal, time, torch, pccl_py as pccl
weight = torch.nn.Parameter(torch.ones(3))
inner = torch.optim.SGD([weight], lr=0.1)
with pccl.protect(pccl.TrainState(model={"w": weight}, inner=inner)) as run:
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    time.sleep(0.2)
    os.kill(child, signal.SIGTERM)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)
    inner.step()
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
print("on", run.step)
"""
    assert spawn("-c", source).communicate()[0].split() == [str(int(signal.SIGTERM)), "on", "1"]
