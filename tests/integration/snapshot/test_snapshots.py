"""`Snapshots` beside a training: killed and gone on bit for bit, lazily, with everything it may be asked."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import pccl_py as pccl  # noqa: E402
from pccl_py import NoSnapshotError, SnapshotError, StateError  # noqa: E402
from pccl_py.snapshot import ask, memory  # noqa: E402
from tests.integration.peers import PATIENT  # noqa: E402
from tests.threads import in_threads  # noqa: E402

MODULE = "tests.integration.snapshot.protected_trainer"


def state(seed: int = 0) -> tuple[Any, Any, pccl.TrainState]:
    torch.manual_seed(seed)
    model = torch.nn.Linear(700, 300)
    inner = torch.optim.AdamW(model.parameters())
    step(model, inner)
    return model, inner, pccl.TrainState(model=model, inner=inner, more={"tied": model.weight, "n": seed})


def step(model: Any, inner: Any) -> None:
    model(torch.ones(2, 700)).square().sum().backward()
    inner.step()
    inner.zero_grad()


def bits(model: Any, inner: Any) -> list[Any]:
    held = [*model.state_dict().values(), *(t for s in inner.state.values() for t in s.values())]
    return [tensor.clone() for tensor in held]


def same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.deadline(200)
def test_a_killed_training_goes_on_as_if_it_had_not_been(spawn: Callable[..., Any], tmp_path: Path) -> None:
    calm = spawn("-m", MODULE, "calm", "30", "").communicate()[0].split("\n")
    wanted = dict(line.split() for line in calm if line[:1].isdigit())
    assert calm[0] == "from program None 0 0" and len(wanted) == 30
    process = spawn("-m", MODULE, "run", "1000000", str(tmp_path))
    seen = [process.stdout.readline() for _ in range(15)]
    os.killpg(process.pid, signal.SIGKILL)
    seen += process.stdout.read().splitlines(keepends=True)
    process.wait()
    last = max(int(line.split()[0]) for line in seen if line[:1].isdigit())
    again = spawn("-m", MODULE, "run", str(max(30, last + 3)), str(tmp_path)).communicate()[0].split("\n")
    word, source, at, run_step, data = again[0].split()
    assert (word, source) == ("from", "snapshot") and at == run_step == data
    assert last - 4 <= int(at) <= last + 1 and int(at) % 2 == 0  # the last one may have had no time to say so
    found = dict(line.split() for line in again if line[:1].isdigit())
    common = found.keys() & wanted.keys()
    assert len(common) >= 1 or int(at) >= 30
    assert {number: found[number] for number in common} == {number: wanted[number] for number in common}
    assert "end" in again


def test_lazily_and_back() -> None:
    model, inner, held = state()
    with pccl.Snapshots(run="run", every=2) as snapshots:
        with pytest.raises(NoSnapshotError):
            snapshots.restore(held)
        assert snapshots.latest() is None
        snapshots.prepare(held)
        assert snapshots.step(1, held) is False
        before = bits(model, inner)
        assert snapshots.step(2, held)
        step(model, inner)  # waits for what is not copied
        info = snapshots.wait()
        assert info is not None and info.step == 2
        status = snapshots.status()
        assert (status.step, status.losses, status.taken) == (2, 0, 1)
        assert status.memory_bytes == 2 * memory.whole_units(status.bytes)
        with pytest.raises(SnapshotError, match="step 2 is not newer"):
            snapshots.take(2, held)
        assert snapshots.take(5, held)
        later = bits(model, inner)
        told = snapshots.restore(held, step=2)
        assert told.step == 2 and same(bits(model, inner), before)
        other, optimizer, another = state(7)
        assert snapshots.restore(another).step == 5 and same(bits(other, optimizer), later)
        assert another.parts["more"].tree()["n"] == 0
        assert snapshots.steps() == [2, 5]
        with pytest.raises(StateError, match="snapshot of step .* not saved: extra"):
            snapshots.restore(another.joined(extra={"x": torch.ones(3)}))
        with pytest.raises(StateError, match=r"F32\[4\]|shape"):
            snapshots.restore({"model": {"weight": torch.ones(4), "bias": torch.ones(300)}}, strict=False)


def test_all_at_once_and_what_is_written_past_the_fence() -> None:
    model, inner, held = state()
    snapshots = pccl.Snapshots(run="run", lazy=False)
    before = bits(model, inner)
    snapshots.take(1, held)
    with torch.no_grad():
        model.weight.zero_()
    snapshots.wait()
    snapshots.restore(held)
    assert same(bits(model, inner), before)
    snapshots.close(free=True)


def test_what_goes_wrong_behind_the_training_is_told_once_and_spoils_that_snapshot_alone() -> None:
    _, _, held = state()
    with pccl.Snapshots(run="run") as snapshots:
        snapshots.take(1, held)
        snapshots.wait()
        complete = snapshots._buffers.complete

        def fails(*words: object) -> None:
            raise SnapshotError("no")

        snapshots._buffers.complete = fails  # type: ignore[method-assign]
        snapshots.take(2, held)
        with pytest.raises(SnapshotError, match="no"):
            snapshots.wait()
        assert snapshots.steps() == [1] and snapshots.status().failed == 1
        snapshots._buffers.complete = complete  # type: ignore[method-assign]
        snapshots.take(3, held)
        snapshots.wait()
        assert snapshots.steps() == [1, 3]


def test_a_keeper_that_is_killed_is_followed_by_one_that_has_the_snapshot(
    kill_keeper: Callable[[], int],
) -> None:
    model, inner, held = state()
    snapshots = pccl.Snapshots(run="run")
    snapshots.take(1, held)
    snapshots.wait()
    before = bits(model, inner)
    kill_keeper()
    until = time.monotonic() + 30
    keeper = snapshots._buffers.keeper
    while snapshots._buffers.keeper is keeper and time.monotonic() < until:
        time.sleep(0.02)
    snapshots.wait()
    step(model, inner)
    snapshots.close()
    with pccl.Snapshots(run="run") as successor:
        assert successor.restore(held).step == 1 and same(bits(model, inner), before)
        successor.take(2, held)
        successor.wait()
        kill_keeper()
        successor.take(3, held)  # whenever it is noticed
        successor.wait()
        assert successor.steps()[-1] == 3


def test_a_state_that_grows_and_one_that_does_not_fit() -> None:
    _, _, held = state()
    with pccl.Snapshots(run="run") as snapshots:
        snapshots.take(1, held)
        grown = held.joined(cache={"k": torch.arange(5_000_000, dtype=torch.float32)})
        snapshots.take(2, grown)
        snapshots.wait()
        grown.parts["cache"].tree()["k"].zero_()
        snapshots.restore(grown)
        assert torch.equal(grown.parts["cache"].tree()["k"], torch.arange(5_000_000, dtype=torch.float32))


def test_arguments() -> None:
    with pytest.raises(pccl.UsageError, match="pass comm="):
        pccl.Snapshots(parity=1)
    wrongs: list[dict[str, Any]] = [{"parity": 256}, {"code_s": -1}]
    for wrong in (
        *wrongs,
        {"every": 0},
        {"on_busy": "now"},
        {"copy_threads": 9},
        {"orphan_s": -1},
        {"timeout_s": 0},
        {"parity": -1},
    ):
        with pytest.raises(pccl.UsageError):
            pccl.Snapshots(**wrong)  # type: ignore[arg-type]


@pytest.mark.deadline(120)
def test_a_lost_host_is_restored_from_others() -> None:
    """Three trainers with their keepers; what one held is lost with its keeper, and is back bit for bit."""
    ready, lost, back = threading.Barrier(3), threading.Event(), threading.Barrier(3)

    def train(name: str, seed: int) -> None:
        with pccl.Communicator(master.address, min_islands=3, config=PATIENT) as comm:
            options: dict[str, Any] = {"parity": 1, "trainer": name, "run": "run", "code_s": 60}
            model, inner, held = state(seed)
            snapshots = pccl.Snapshots(comm, keeper=name, domain=name, **options)
            snapshots.take(1, held)
            snapshots.wait()
            while snapshots.status().losses < 1:  # until all are there
                snapshots.take(snapshots.steps()[-1] + 1, held)
                snapshots.wait()
                time.sleep(0.1)
            status = snapshots.status()
            assert (status.coded, status.fault) == (status.step, "")
            ready.wait(60)
            if name == "c":
                before = bits(model, inner)
                snapshots.close()
                os.kill(keeper_of("c"), signal.SIGKILL)
                _, _, other = successor = state(seed + 7)
                with pccl.Snapshots(comm, keeper="d", domain="d", **options) as snapshots:
                    told = snapshots.restore(other)
                    assert told.step == status.step and same(bits(*successor[:2]), before)
                lost.set()
            assert lost.wait(60)
            back.wait(60)
            snapshots.close(free=True)

    with pccl.Master(config=PATIENT) as master:
        in_threads([partial(train, name, seed) for seed, name in enumerate("abc")], 100)
        until = time.monotonic() + 20
        while left := [one for one in map(ask.summary, ask.sockets()) if one is not None]:
            assert time.monotonic() < until, f"freed by all, and still there: {left}"
            time.sleep(0.1)


def keeper_of(name: str) -> int:
    found = [ask.summary(path) for path in ask.sockets()]
    return next(one.pid for one in found if one is not None and one.keeper == name)
