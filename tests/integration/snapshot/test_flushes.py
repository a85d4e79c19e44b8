"""Snapshots that are written to the disk from their buffers: checkpoints like any other, and what a run falls
back to when more hosts are lost than there are parities."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import pccl_py as pccl  # noqa: E402
from pccl_py import Master  # noqa: E402
from pccl_py.cli import main as cli  # noqa: E402
from tests.conftest import Spawn  # noqa: E402
from tests.integration.peers import PATIENT  # noqa: E402

from .conftest import free_keepers  # noqa: E402
from .gang import FOREVER, calm, kill_keeper, lines, rest, start, step_of  # noqa: E402
from .test_snapshots import bits, same, state, step  # noqa: E402


@pytest.fixture
def master() -> Iterator[Master]:
    with Master(config=PATIENT) as running:
        yield running
        free_keepers()


def test_one_copy_serves_memory_and_disk(tmp_path: Path) -> None:
    model, inner, held = state()
    saver = pccl.Checkpointer(tmp_path)
    with saver, pccl.Snapshots(run="run", every=2, flush_every=4, checkpoints=saver) as snapshots:
        found = {}
        for number in range(1, 10):
            step(model, inner)
            found[number] = bits(model, inner)
            snapshots.step(number, held)
        snapshots.wait()
        saver.wait()
        assert saver.steps() == [4, 8] and snapshots.status().flushed == 8
        assert saver.stats.pool_bytes == 0, "no memory of its own"
        assert saver.verify(8).sound
        for number in (4, 8):
            assert saver.load(held, number).step == number and same(bits(model, inner), found[number])
    assert cli(["ckpt", "verify", str(tmp_path)]) == 0


def test_a_slow_disk_is_waited_for_before_its_bytes_are_written_over(tmp_path: Path) -> None:
    from pccl_py.checkpoint import native

    model, inner, held = state()
    saver = pccl.Checkpointer(tmp_path, keep=9)
    saver._disk = native.InjectedDisk("pwrite * delay 300")
    with saver, pccl.Snapshots(run="run", every=1, flush_every=2, checkpoints=saver) as snapshots:
        found = {}
        for number in range(1, 7):
            step(model, inner)
            found[number] = bits(model, inner)
            snapshots.take(number, held)
        snapshots.wait()
        saver.wait()
        for number in (2, 4, 6):
            saver.load(held, number)
            assert same(bits(model, inner), found[number])


def test_a_disk_that_fails_costs_that_checkpoint_alone(tmp_path: Path) -> None:
    from pccl_py.checkpoint import native

    model, inner, held = state()
    saver = pccl.Checkpointer(tmp_path)
    saver._disk = native.InjectedDisk("fdatasync 1 EIO")
    with saver, pccl.Snapshots(run="run", flush_every=1, checkpoints=saver) as snapshots:
        snapshots.take(1, held)
        snapshots.wait()
        with pytest.raises(pccl.CheckpointError):
            saver.wait()
        assert snapshots.steps() == [1] and saver.steps() == []
        step(model, inner)
        snapshots.take(2, held)
        snapshots.wait()
        saver.wait()
        assert snapshots.steps() == [1, 2] and saver.steps() == [2]


def test_arguments(tmp_path: Path) -> None:
    wrongs: list[dict[str, Any]] = [{"flush_every": 0}, {"every": 2, "flush_every": 3}]
    for wrong in wrongs:
        with pytest.raises(pccl.UsageError):
            pccl.Snapshots(**wrong)
    with (
        pccl.Checkpointer(tmp_path, every=3) as saver,
        pytest.raises(pccl.UsageError, match="leave that out"),
    ):
        pccl.Snapshots(flush_every=2, checkpoints=saver)


@pytest.mark.deadline(120)
@pytest.mark.parametrize("delay", [0.0, pytest.param(0.05, marks=pytest.mark.nightly)])
def test_killed_while_the_disk_writes(spawn: Spawn, tmp_path: Path, delay: float) -> None:
    """What the folder has is whole, and what it says it has."""
    keep: dict[str, Any] = {"every": 1, "flush_every": 1, "folder": tmp_path}
    process = start(spawn, steps=FOREVER, **keep)
    told = lines(process, lambda line: step_of(line, 4))
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    told = [one for one in (*told, *rest(process)) if "losses" in one]
    said = {one["step"]: one["bits"] for one in told}
    with pccl.Checkpointer(tmp_path) as saver:
        newest = saver.latest()
        assert newest is not None and newest >= max(one["saved"] or 0 for one in told)
        assert saver.verify(newest).sound
    free_keepers()  # as if the host had been lost, but not its disk
    first = rest(start(spawn, steps=1, **keep))[0]
    assert (first["source"], first["step"]) == ("checkpoint", newest)
    assert said.get(newest, first["bits"]) == first["bits"]


@pytest.mark.deadline(180)
@pytest.mark.parametrize(("before", "after"), [(2, 1), pytest.param(2, 4, marks=pytest.mark.nightly)])
def test_what_was_flushed_is_resharded(spawn: Spawn, tmp_path: Path, before: int, after: int) -> None:
    """Each rank's part was written from its own buffer; another number goes on from the disk alone."""

    def gang(store: str, world: int, **options: Any) -> list[subprocess.Popen[str]]:
        common = {"world": world, "store": tmp_path / store, "keeper": "one", "every": 1, "flush_every": 2,
                  "folder": tmp_path / "disk"} | options  # fmt: skip
        return [start(spawn, rank=rank, **common) for rank in range(world)]

    ranks = gang("first", before, steps=FOREVER)
    told = [lines(rank, lambda line: (line.get("saved") or 0) >= 4) for rank in ranks]
    for rank in ranks:
        rank.kill()
    for number, rank in enumerate(ranks):
        told[number] += rest(rank)
    free_keepers()  # as if the host had been lost, but not its disk
    with pccl.Checkpointer(tmp_path / "disk") as saver:
        newest = saver.latest()
        assert newest is not None and newest >= 4 and saver.verify(newest).sound
    again = [rest(rank) for rank in gang("second", after, steps=newest + 2)]
    wanted = calm(newest + 2)
    for said in again:
        assert (said[0]["source"], said[0]["step"], said[0]["bits"]) == ("checkpoint", newest, wanted[newest])
        found = {one["step"]: one["bits"] for one in said if "losses" in one}
        assert found == {step: wanted[step] for step in (newest + 1, newest + 2)}
        assert said[-1] == {"end": True}


@pytest.mark.deadline(240)
def test_more_losses_than_parities_go_back_to_the_disk(master: Master, spawn: Spawn, tmp_path: Path) -> None:
    """Four ranks with one parity; two hosts are lost with trainers and keepers, the other trainers end."""

    def gang(store: str, prefix: str, **options: Any) -> list[subprocess.Popen[str]]:
        common = {"world": 4, "store": tmp_path / store, "master": master.address, "parity": 1, "every": 2,
                  "folder": tmp_path / "disk", "flush_every": 6} | options  # fmt: skip
        return [
            start(spawn, rank=rank, prefix="h" if rank < 2 else prefix, founders=4, **common)
            for rank in range(4)
        ]

    ranks = gang("first", "h", steps=FOREVER)
    told = [lines(rank, lambda line: line.get("losses") == 1 and (line["saved"] or 0) > 0) for rank in ranks]
    for rank in ranks:
        rank.kill()
    for name in ("h2", "h3"):
        kill_keeper(name)
    for number, rank in enumerate(ranks):
        told[number] += rest(rank)
    said = {one["step"]: one["bits"] for one in told[0] if "losses" in one}
    with pccl.Checkpointer(tmp_path / "disk") as saver:
        newest = saver.latest()
        assert saver.verify(newest).sound and newest % 6 == 0
    again = gang("second", "new", steps=newest + 3)
    found = [rest(rank) for rank in again]
    for first in (one[0] for one in found):
        assert (first["source"], first["step"], first["at"]) == ("checkpoint", newest, newest)
        assert "trainer '2' is gone" in first["why"] or "trainer '3' is gone" in first["why"]
        assert first["bits"] == said[newest]
    wanted = calm(newest + 3)
    after = {one["step"]: one["bits"] for one in found[0] if "losses" in one}
    assert after and {number: wanted[number] for number in after} == after
    assert all(one[-1] == {"end": True} for one in found)
