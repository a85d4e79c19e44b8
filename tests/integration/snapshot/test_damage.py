"""Bytes that change in memory: a keeper sees it, what is damaged counts as lost, and comes from others."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import pccl_py as pccl
from pccl_py import Master, NoSnapshotError
from pccl_py.joined_with import JoinedWith
from pccl_py.snapshot import launch
from pccl_py.snapshot.buffers import Buffers
from tests.threads import in_threads

from .coded_trainer import coded_buffers, content, restored, take_coded
from .test_across_hosts import COUNT, keeper_pid, master
from .test_repair import holders, survives, wait_for

__all__ = ["master"]  # a fixture


@pytest.fixture
def lazily(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keepers that do not look by themselves."""
    monkeypatch.setattr(launch, "MODULE", "tests.integration.snapshot.lazy_keeper")


def coded(master: Master, world: int, parity: int) -> dict[int, Buffers]:
    held = {number: coded_buffers("run", master.address, number, parity) for number in range(world)}
    in_threads([one.attach for one in held.values()], 60)
    in_threads([partial(take_coded, one, number, 1, COUNT) for number, one in held.items()], 60)
    wait_for(lambda: survives(held, parity))
    return held


def damage(one: Buffers) -> None:
    """One bit of each half of its newest snapshot: of each of its two blocks."""
    fd = one.kept[0].fd
    for at in (COUNT // 4, 3 * COUNT // 4):
        os.pwrite(fd, bytes([os.pread(fd, 1, at)[0] ^ 4]), at)


def expect(one: Buffers, number: int) -> None:
    step, data = restored(one, COUNT)
    assert step == 1 and np.array_equal(data, content(number, 1, COUNT))


def free(*all_of_them: Buffers) -> None:
    for one in all_of_them:
        one.close(free=True)


def test_a_keeper_looks_at_what_it_keeps(master: Master) -> None:
    """Nobody is there who would: then the others have it, before anybody comes."""
    held = coded(master, 3, 1)
    lost = held.pop(0)
    damage(lost)
    lost.close(free=False)
    wait_for(lambda: bool(holders(0)) and "k0" not in holders(0))
    wait_for(lambda: survives(held, 1))
    successor = coded_buffers("run", master.address, 0, 1)
    successor.attach()
    assert not successor.kept
    successor.fetch(30.0)
    expect(successor, 0)
    free(successor, *held.values())


def test_who_is_there_goes_on(master: Master) -> None:
    """Its damaged snapshot is held by another keeper until its next one is coded."""
    held = coded(master, 3, 1)
    damage(held[0])
    wait_for(lambda: len(holders(0)) == 2)
    in_threads([partial(take_coded, one, number, 2, COUNT) for number, one in held.items()], 60)
    wait_for(lambda: holders(0) == ["k0"] and survives(held, 1))
    free(*held.values())


def test_a_part_that_is_damaged_where_another_host_is_lost(master: Master, lazily: None) -> None:
    """Found as what was brought back is checked: the others are asked without it."""
    held = coded(master, 4, 2)
    damage(held[1])
    os.kill(keeper_pid("k0"), signal.SIGKILL)
    held.pop(0).close(free=False)
    successor = coded_buffers("run", master.address, 0, 2, keeper="new")
    successor.attach()
    successor.fetch(30.0)
    expect(successor, 0)
    free(successor, *held.values())


def test_damage_beyond_the_parity_is_named(master: Master, lazily: None) -> None:
    held = coded(master, 3, 1)
    damage(held[1])
    os.kill(keeper_pid("k0"), signal.SIGKILL)
    held.pop(0).close(free=False)
    successor = coded_buffers("run", master.address, 0, 1, keeper="new")
    successor.attach()
    with pytest.raises(NoSnapshotError, match="step 1 of trainer 't0' is gone"):
        successor.fetch(30.0)
    free(successor, *held.values())


def test_a_successor_finds_the_damage(master: Master, lazily: None) -> None:
    """Before any keeper has looked."""
    held = coded(master, 3, 1)
    lost = held.pop(0)
    damage(lost)
    lost.close(free=False)
    time.sleep(0.5)
    successor = coded_buffers("run", master.address, 0, 1)
    successor.attach()
    assert successor.newest_step == 1
    successor.replace_damaged(30.0)
    expect(successor, 0)
    free(successor, *held.values())


def test_restore_asks_the_others(master: Master, lazily: None) -> None:
    """Through the door that everybody takes."""
    held = coded(master, 2, 1)
    joined = SimpleNamespace(
        joined_with=JoinedWith(master.address, None, False, False, "", None, None), run_name="run"
    )
    options: dict[str, Any] = {"parity": 1, "run": "run", "trainer": "torch", "keeper": "k9", "domain": "k9"}
    tensor = torch.arange(500_000)
    with pccl.Snapshots(joined, **options) as first:
        first.take(7, {"w": {"t": tensor}})
        first.wait()
        wait_for(lambda: survives(held, 1))
        fd = first._buffers.kept[0].fd
        os.pwrite(fd, b"damage", 2_000_000)
        first.close()
        again = torch.zeros(500_000, dtype=torch.int64)
        with pccl.Snapshots(joined, **options) as second:
            second.prepare({"w": {"t": again}})  # buffers, which make room for what the others bring
            info = second.restore({"w": {"t": again}})
            assert info.step == 7 and torch.equal(again, tensor)
            second.take(8, {"w": {"t": again}})
            second.wait()
            assert second.latest() == 8
            wait_for(lambda: second.status().overhead > 0)
            status = second.status()
            assert status.overhead == status.parity_bytes / status.memory_bytes
    free(*held.values())
