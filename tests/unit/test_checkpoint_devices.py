"""Pieces that the core cannot read are copied by a thread of their own. Played with host memory that is taken
for a device's; tests/integration/test_cuda.py has real ones."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import pccl_py as pccl
from pccl_py.checkpoint import foreign, native, shard_plans
from pccl_py.checkpoint.pieces import Piece
from pccl_py.errors import CheckpointError


@pytest.fixture(autouse=True)
def every_second_piece_is_a_device_s(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def every_second(pieces: Sequence[Piece]) -> list[int]:
        return list(range(0, len(pieces), 2))

    monkeypatch.setattr(shard_plans, "foreign", every_second)
    yield


def parts(count: int = 6, elements: int = 1 << 22) -> tuple[torch.nn.ParameterList, torch.optim.SGD]:
    module = torch.nn.ParameterList([torch.full((elements + index,), float(index)) for index in range(count)])
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    for parameter in module:
        parameter.grad = torch.ones_like(parameter)
    return module, optimizer


@pytest.mark.parametrize("pool_bytes", [32 << 20, 256 << 20])
def test_they_are_the_values_of_the_call(tmp_path: Path, pool_bytes: int) -> None:
    module, optimizer = parts()
    buffers: dict[str, Any] = {f"b{index}": torch.full((1 << 20,), 7.0) for index in range(4)}
    state = {"model": module, "inner": optimizer, "buffers": buffers}
    with pccl.Checkpointer(tmp_path, pool_bytes=pool_bytes, timeout_s=30) as saver:
        for step in range(3):
            saver.save(step, state)
            optimizer.step()  # takes 1 from each element, behind the fence
            for buffer in buffers.values():
                buffer.add_(1)  # nobody owns them: copied within the call
        saver.wait()
        saver.load(state, 1 if 1 in saver.steps() else 2)
    step = 1
    for index, parameter in enumerate(module):
        assert bool((parameter == index - step).all()), index
    assert all(bool((buffer == 7 + step).all()) for buffer in buffers.values())


def test_a_copy_that_fails_fails_the_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, optimizer = parts(2, 1000)

    def broken(*_: object) -> None:
        raise RuntimeError("an illegal memory access")

    with pccl.Checkpointer(tmp_path, timeout_s=30) as saver:
        monkeypatch.setattr(foreign, "_copy", broken)
        begun = time.monotonic()
        saver.save(1, {"model": module, "inner": optimizer})
        optimizer.step()
        with pytest.raises(CheckpointError):
            saver.wait()
        assert time.monotonic() - begun < 10 and saver.steps() == []
        monkeypatch.undo()
        saver.save(2, {"model": module, "inner": optimizer})
        saver.wait()
        assert saver.steps() == [2]


def test_a_last_copy_that_fails_fails_the_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its slab is given back before the thread has come to say that it failed, and all seems to be copied."""
    module, optimizer = parts(2, 1000)
    copy_all = foreign.ForeignCopier._copy_all

    def broken(*_: object) -> None:
        raise RuntimeError("an illegal memory access")

    def told_late(copier: foreign.ForeignCopier) -> None:
        try:
            copy_all(copier)
        finally:
            time.sleep(0.5)

    with pccl.Checkpointer(tmp_path, timeout_s=30) as saver:
        monkeypatch.setattr(foreign, "_copy", broken)
        monkeypatch.setattr(foreign.ForeignCopier, "_copy_all", told_late)
        saver.save(1, {"model": module, "inner": optimizer})
        with pytest.raises(CheckpointError, match="an illegal memory access"):
            saver.wait()
        assert saver.steps() == []


def test_a_disk_that_takes_nothing_keeps_no_thread_of_devices(tmp_path: Path) -> None:
    """In a pool smaller than the state, whose slabs do not come back while the save waits for them."""
    module, optimizer = parts(10)
    saver = pccl.Checkpointer(tmp_path, pool_bytes=64 << 20, timeout_s=0.5)
    saver._disk = native.InjectedDisk("pwrite 2+ delay 6000")
    saver.save(1, {"model": module, "inner": optimizer})
    begun = time.monotonic()
    with pytest.raises(CheckpointError, match="were not copied within 0.5 s"):
        saver.wait(5)
    assert time.monotonic() - begun < 4
    with suppress(CheckpointError):
        saver.close()
