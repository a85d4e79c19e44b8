"""Saving beside training and loading again: what comes back is what was there when save() was called."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pccl_py as pccl
from pccl_py.checkpoint import native
from pccl_py.errors import BusyError, CheckpointError, NoCheckpointError, StateError, UsageError
from pccl_py.staging import Pool, fence

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64,
]  # fmt: skip


def model_of(width: int = 64, seed: int = 0) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(width, width),
        torch.nn.BatchNorm1d(width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, width),
    )


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int = 1) -> float:
    """On data drawn from torch's generator, so that a run that resumes needs its state."""
    loss = torch.zeros(())
    for _ in range(steps):
        batch = torch.randn(8, model[0].in_features)  # type: ignore[index, union-attr, arg-type]
        loss = model(batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def values(*parts: Any) -> list[torch.Tensor]:
    """Copies of all tensors of the parts' state_dict(), in their order."""
    found: list[torch.Tensor] = []

    def add(tree: Any) -> None:
        if isinstance(tree, torch.Tensor):
            found.append(tree.detach().clone())
        elif isinstance(tree, dict):
            for value in tree.values():
                add(value)

    for part in parts:
        add(part.state_dict())
    return found


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(
        a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
        for a, b in zip(one, other, strict=True)
    )


def saver_on(disk: Any, path: Path, **options: Any) -> pccl.Checkpointer:
    saver = pccl.Checkpointer(path, **options)
    saver._disk = disk
    return saver


def test_a_resumed_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    model = model_of()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    train(model, optimizer, 4)
    scheduler.step()
    state = pccl.TrainState(model=model, inner=optimizer, scheduler=scheduler)
    with pccl.Checkpointer(tmp_path) as saver:
        assert saver.save(4, state)
        losses = [train(model, optimizer) for _ in range(5)]
        info = saver.wait()
    assert info is not None and info.step == 4
    expected = values(model, optimizer)

    model, before = model_of(seed=7), None
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    before = [parameter.data_ptr() for parameter in model.parameters()]
    with pccl.Checkpointer(tmp_path) as saver:
        loaded = saver.load(pccl.TrainState(model=model, inner=optimizer, scheduler=scheduler))
    assert (loaded.step, loaded.missing, loaded.unexpected, loaded.skipped) == (4, (), (), ())
    assert [parameter.data_ptr() for parameter in model.parameters()] == before  # read in place
    assert scheduler.last_epoch == 1 and optimizer.param_groups[0]["lr"] == 1e-2
    assert [train(model, optimizer) for _ in range(5)] == losses
    assert same(values(model, optimizer), expected)


def test_what_is_saved_is_the_moment_of_the_call_whatever_is_written_after_it(tmp_path: Path) -> None:
    """Large enough that the copy is still under way when the optimizer steps and forward changes buffers."""
    model = model_of(2048)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    train(model, optimizer)
    state = {"model": model, "inner": optimizer}
    with pccl.Checkpointer(tmp_path, keep=10) as saver:
        moments = []
        for step in range(6):
            moments.append(values(model, optimizer))
            saver.save(step, state)
            train(model, optimizer)  # without a pause: forward writes buffers, step() all the rest
        saver.wait()
        for step, moment in enumerate(moments):
            saver.load(state, step)
            assert same(values(model, optimizer), moment), f"step {step} is torn"


def test_a_write_past_the_fence_fails_that_save_by_name_and_no_other(tmp_path: Path) -> None:
    model = model_of(3000)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train(model, optimizer)
    state = {"model": model, "inner": optimizer}
    with pccl.Checkpointer(tmp_path) as saver:
        saver.save(1, state)
        saver.wait()
        saver.save(2, state)
        with torch.no_grad():
            model[3].weight.add_(1)
        with pytest.raises(StateError, match=r"model/3\.weight was written .* past the fence"):
            saver.wait()
        assert saver.steps() == [1]
        saver.save(3, state)
        fence.before_write()
        with torch.no_grad():
            model[3].weight.add_(1)
        saver.wait()
        assert saver.steps() == [1, 3] and saver.stats.failed == 1


def test_all_dtypes_and_odd_tensors(tmp_path: Path) -> None:
    torch.manual_seed(1)
    tensors: dict[str, Any] = {}
    for number, dtype in enumerate(DTYPES):
        raw = torch.randint(0, 2 if dtype == torch.bool else 100, (number + 1, 5))
        tensors[str(dtype)] = raw.to(dtype)
    base = torch.arange(60.0).reshape(6, 10)
    tensors |= {
        "0-dim": torch.tensor(3.5),
        "empty": torch.empty(0, 7),
        "column": base[:, 3],
        "transposed": base.T,
        "strided": base[::2, ::3],
        "tied": base,
        "tied again": base,
        "part of it": base[2:4],
        "a/b~c": torch.ones(3),
        "number": 3,
        "nested": {"list": [torch.ones(2), 1.5, None, "x"], 7: (1, b"raw", np.float32(2.5))},
        "array": np.arange(12.0).reshape(3, 4),
    }
    with pccl.Checkpointer(tmp_path) as saver:
        saver.save(0, {"all": tensors})
        saver.wait()
        blank: dict[str, Any] = {
            name: torch.zeros_like(value) if isinstance(value, torch.Tensor) else None
            for name, value in tensors.items()
        }
        columns = torch.zeros(6, 10)
        blank["column"] = columns[:, 3]
        saver.load({"all": blank})
    for name, value in tensors.items():
        if isinstance(value, torch.Tensor):
            assert blank[name].dtype == value.dtype and bits(blank[name]) == bits(value), name
    assert torch.equal(columns[:, 3], base[:, 3]) and not columns[:, 4].any()
    assert blank["number"] == 3 and blank["nested"][7] == (1, b"raw", np.float32(2.5))
    assert torch.equal(blank["nested"]["list"][0], torch.ones(2)) and blank["nested"]["list"][1:] == [
        1.5,
        None,
        "x",
    ]
    assert np.array_equal(blank["array"], tensors["array"])


def test_ten_thousand_tiny_tensors(tmp_path: Path) -> None:
    tensors = {f"t{index}": torch.full((index % 3,), float(index)) for index in range(10_000)}
    with pccl.Checkpointer(tmp_path) as saver:
        saver.save(0, {"tiny": tensors})
        saver.wait()
        blank = {name: torch.zeros_like(value) for name, value in tensors.items()}
        saver.load({"tiny": blank})
    assert all(torch.equal(blank[name], value) for name, value in tensors.items())


def test_a_pool_of_a_quarter_of_the_state_gives_the_same(tmp_path: Path) -> None:
    tensors = {f"t{index}": torch.randn(5_000_000 + index) for index in range(8)}
    with pccl.Checkpointer(tmp_path, pool_bytes=40 << 20) as saver:
        for step in range(3):
            saver.save(step, {"large": tensors})
            for tensor in tensors.values():
                tensor.add_(1)  # save() has copied them: nobody owns them
        saver.wait()
        expected = {name: value - 1 for name, value in tensors.items()}
        blank = {name: torch.zeros_like(value) for name, value in tensors.items()}
        saver.load({"large": blank}, 2)
        assert saver.stats.pool_bytes <= 40 << 20
    assert all(torch.allclose(blank[name], value) for name, value in expected.items())


def test_a_damaged_step_is_named_and_an_older_one_taken(tmp_path: Path) -> None:
    tensors = {"w": torch.arange(1_000_000.0)}
    with pccl.Checkpointer(tmp_path, keep=3) as saver:
        for step in (1, 2):
            saver.save(step, {"x": tensors})
            saver.wait()
            tensors["w"] += 1
        (shard,) = (tmp_path / "step-000000000002").glob("shard-*")
        with open(shard, "r+b") as file:
            file.seek(2_500_000)
            byte = file.read(1)
            file.seek(2_500_000)
            file.write(bytes([byte[0] ^ 4]))
        loaded = saver.load({"x": (blank := {"w": torch.zeros(1_000_000)})})
        assert loaded.step == 1 and torch.equal(blank["w"], torch.arange(1_000_000.0))
        ((step, why),) = loaded.skipped
        assert step == 2 and shard.name in why and "block 2" in why
        with pytest.raises(CheckpointError, match="block 2"):
            saver.load({"x": blank}, 2)
        assert not saver.verify(2).sound and saver.verify(1).sound


def test_old_steps_are_retired_and_their_files_used_again(tmp_path: Path) -> None:
    tensors = {"w": torch.zeros(3 << 20)}
    inodes = []
    with pccl.Checkpointer(tmp_path, keep=2, keep_every=4) as saver:
        for step in range(9):
            tensors["w"].fill_(step)
            saver.save(step, {"x": tensors})
            saver.wait()
            (shard,) = (tmp_path / f"step-{step:012d}").glob("shard-*")
            inodes.append(shard.stat().st_ino)
        assert saver.steps() == [0, 4, 7, 8]
        for step in saver.steps():
            saver.load({"x": tensors}, step)
            assert (tensors["w"] == step).all()
    assert len(set(inodes)) < 9  # some were written over
    names = sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("."))
    with pccl.Checkpointer(tmp_path, keep=2, keep_every=4) as saver:  # sweeps the spare file's folder
        assert saver.steps() == [0, 4, 7, 8]
    assert len(names) <= 5 and len(list(tmp_path.glob("step-*"))) == 4


def test_policies_for_a_busy_saver(tmp_path: Path) -> None:
    slow = native.InjectedDisk("pwrite * delay 200")
    tensors = {"w": torch.zeros(1 << 20)}
    for policy in ("wait", "skip", "error"):
        with saver_on(slow, tmp_path / policy, on_busy=policy, in_flight=1) as saver:
            assert saver.save(0, {"x": tensors})
            if policy == "error":
                with pytest.raises(BusyError, match=r"\[0\]"):
                    saver.save(1, {"x": tensors})
            else:
                assert saver.save(1, {"x": tensors}) is (policy == "wait")
            saver.wait()
            assert saver.steps() == ([0, 1] if policy == "wait" else [0])


def test_a_disk_that_fails_ends_no_training_and_keeps_older_steps(tmp_path: Path) -> None:
    model = model_of(256)
    optimizer = torch.optim.AdamW(model.parameters())
    train(model, optimizer)
    state = {"model": model, "inner": optimizer}
    with pccl.Checkpointer(tmp_path) as saver:
        saver.save(1, state)
    moment = values(model, optimizer)
    for fault in ("pwrite 2+ ENOSPC", "fdatasync 1 EIO", "open 1 EROFS", "pwrite 1+ EIO"):
        saver = saver_on(native.InjectedDisk(fault), tmp_path)
        saver.save(2, state)
        train(model, optimizer, 3)  # goes on
        with pytest.raises(CheckpointError, match="step-000000000002"):
            saver.wait()
        assert saver.steps() == [1]
        saver.close()
        assert not (tmp_path / "step-000000000002").exists()
        with pccl.Checkpointer(tmp_path) as saver:
            saver.load(state)
            assert same(values(model, optimizer), moment)


def test_two_savers_and_wrong_calls(tmp_path: Path) -> None:
    with pccl.Checkpointer(tmp_path) as saver:
        with pytest.raises(BusyError, match=str(os.getpid())):
            pccl.Checkpointer(tmp_path)
        with pytest.raises(NoCheckpointError, match="no complete step"):
            saver.load({"x": {"w": torch.zeros(1)}})
        with pytest.raises(UsageError, match="step -1"):
            saver.save(-1, {"x": {"w": torch.zeros(1)}})
        with pytest.raises(UsageError, match="every"):
            saver.step(1, {"x": {"w": torch.zeros(1)}})
        saver.save(1, {"x": {"w": torch.zeros(2)}})
        saver.wait()
        with pytest.raises(StateError, match=r"x/w is F32\[3\] here and F32\[2\]"):
            saver.load({"x": {"w": torch.zeros(3)}})
        with pytest.raises(StateError, match="not saved: x/v"):
            saver.load({"x": {"w": torch.zeros(2), "v": torch.zeros(1)}})
        with pytest.raises(BusyError, match="exists already"):
            saver.save(1, {"x": {"w": torch.zeros(2)}})
    with pytest.raises(UsageError, match="closed"):
        saver.save(2, {"x": {"w": torch.zeros(2)}})
    with pytest.raises(UsageError, match="on_busy"):
        pccl.Checkpointer(tmp_path, on_busy="never")  # type: ignore[arg-type]


def test_partial_and_renamed_loads(tmp_path: Path) -> None:
    with pccl.Checkpointer(tmp_path) as saver:
        saver.save(1, {"model": {"old": torch.ones(2), "other": torch.zeros(2)}, "more": {"n": 5}})
        saver.wait()
        target = {"new": torch.zeros(2)}
        info = saver.load({"model": target}, strict=False, mapping={"model/new": "model/old"})
        assert torch.equal(target["new"], torch.ones(2)) and info.missing == ()
        more = {"n": 0}
        saver.load({"model": {"old": torch.zeros(2)}, "more": more}, parts=["more"])
        assert more == {"n": 5}


def test_a_step_that_came_past_the_saver_stays_as_it_is(tmp_path: Path) -> None:
    with pccl.Checkpointer(tmp_path / "other", process_group="alone") as saver:
        saver.save(2, {"x": {"w": torch.ones(5)}})
    with pccl.Checkpointer(tmp_path / "own", process_group="alone", keep=3) as saver:
        folder = tmp_path / "own" / "step-000000000002"
        shutil.copytree(tmp_path / "other" / folder.name, folder)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert saver.save(2, {"x": {"w": torch.zeros(5)}}), "the call asks no disk"
        with pytest.raises(CheckpointError, match=r"step-000000000002 exists already: .* another number"):
            saver.wait()
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        saver.save(3, {"x": {"w": torch.zeros(5)}})
        saver.wait()
        with pytest.raises(BusyError, match="exists already"):
            saver.save(3, {"x": {"w": torch.zeros(5)}})
        shutil.rmtree(tmp_path / "own" / "step-000000000003")  # its number is free again
        saver.save(3, {"x": {"w": torch.ones(5)}})
        saver.wait()
        assert saver.steps() == [2, 3]


def test_a_folder_that_cannot_be_made_is_told_by_the_next_call(tmp_path: Path) -> None:
    with saver_on(native.InjectedDisk("mkdir 2 ENOSPC"), tmp_path, keep=1) as saver:
        for step in (1, 3):
            saver.save(step, {"x": {"w": torch.full((5,), step)}})
            if step == 1:
                saver.wait()
        with pytest.raises(CheckpointError, match=r"cannot make .*step-000000000003: .*; free space"):
            saver.wait()
        assert saver.steps() == [1] and [path.name for path in tmp_path.glob("step-*")] == [
            "step-000000000001"
        ]
        for step in (4, 5, 6):  # files are used again as before
            saver.save(step, {"x": {"w": torch.full((5,), step)}})
            saver.wait()
        assert saver.steps() == [6]


def test_gc_leaves_a_save_alone_that_is_on_its_way(tmp_path: Path) -> None:
    slow = native.InjectedDisk("open * delay 150")
    tensors = {"w": torch.ones(1 << 18)}
    with saver_on(slow, tmp_path, keep=1) as saver:
        for step in range(3):
            saver.save(step, {"x": tensors})
            for _ in range(20):
                saver.gc()  # the step's folder is still empty, then it holds a file without a manifest
            saver.wait()
            assert saver.steps() == [step]


def test_a_pool_in_a_memfd_serves_two_savers_and_stays_its_owner_s(tmp_path: Path) -> None:
    fd = os.memfd_create("pool")
    os.ftruncate(fd, 40 << 20)  # two slabs and a half
    with Pool(fd=fd) as pool:
        assert pool.bytes == pool.free_bytes == 32 << 20
        state = {"w": torch.arange(3 << 20, dtype=torch.float32)}
        for name in ("a", "b"):
            with pccl.Checkpointer(tmp_path / name, pool=pool) as saver:
                saver.save(1, {"x": state})
                saver.wait()
                assert saver.stats.pool_bytes == pool.bytes
                into = {"w": torch.zeros(3 << 20)}
                saver.load({"x": into})
                assert torch.equal(into["w"], state["w"])
        assert pool.free_bytes == pool.bytes
        rows = np.frombuffer(os.pread(fd, 40 << 20, 0), np.float32)
        assert 2.0**20 + 12345 in rows, "another process could read what is being saved"
    os.close(fd)
    for wrong in ({}, {"bytes": 16 << 20}, {"fd": fd}):
        with pytest.raises(UsageError):
            Pool(**wrong)
    with Pool(32 << 20) as pool, pytest.raises(UsageError, match="pool_bytes"):
        pccl.Checkpointer(tmp_path / "c", pool=pool, pool_bytes=64 << 20)


def test_the_pool_s_pages_come_before_the_first_save(tmp_path: Path) -> None:
    def resident() -> int:
        with open("/proc/self/statm") as words:
            return int(words.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    before, size = resident(), 256 << 20
    with pccl.Checkpointer(tmp_path, pool_bytes=size) as saver:
        until = time.monotonic() + 30
        while resident() - before < 0.9 * size:
            assert time.monotonic() < until, "nobody makes them"
            time.sleep(0.01)
        state = {"x": {"w": torch.arange(1000.0)}}
        saver.prepare(state)
        assert saver.save(1, state) and saver.stats.pool_bytes == size
    assert not [thread for thread in threading.enumerate() if thread.name == "pccl-warm"]
