"""A checkpoint holds what was there together when save() was called, or nothing: whoever writes what."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

import pccl_py as pccl
from pccl_py import _core
from pccl_py.checkpoint import worker_thread
from pccl_py.errors import BusyError, CheckpointError, DamagedError, StateError
from pccl_py.optim.outer_state import Fragment, OuterState
from pccl_py.staging import fence
from pccl_py.state.boxed import World
from pccl_py.state.owners import NOBODY, Written, extent, owners_of
from pccl_py.state.train_state import TrainState
from pccl_py.state_sync import StateSync

ALONE = World(0, 1)
LARGE = 1 << 24  # elements whose copy is still under way when save() returns


def loaded(path: Path, like: Any, **options: Any) -> Any:
    with pccl.Checkpointer(path) as saver:
        saver.load(like, **options)
    return like


def flip_last_byte(path: Path, step: int) -> None:
    file = next(path.glob(f"step-{step:012d}/shard-*"))
    with open(file, "r+b") as shard:
        shard.seek(-1, os.SEEK_END)
        last = shard.read(1)[0]
        shard.seek(-1, os.SEEK_END)
        shard.write(bytes([last ^ 1]))


def frozen(value: float) -> torch.nn.Linear:
    module = torch.nn.Linear(1, 1, bias=False)
    module.weight = torch.nn.Parameter(torch.full((LARGE,), value), requires_grad=False)
    return module


def test_an_average_of_weights_that_is_written_by_hand_is_saved_as_it_was(tmp_path: Path) -> None:
    average = frozen(0)
    with pccl.Checkpointer(tmp_path) as saver:
        saver.save(1, {"average": average})
        average.weight.data.add_(1)  # unseen by torch's counter of versions
        saver.wait()
    assert loaded(tmp_path, {"average": frozen(9)})["average"].weight.unique().tolist() == [0]


def test_a_parameter_of_two_optimizers_has_no_owner(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.zeros(LARGE))
    parameter.grad = torch.ones_like(parameter)
    one, two = (torch.optim.SGD([parameter], lr=1.0, fused=True) for _ in range(2))
    with pccl.Checkpointer(tmp_path) as saver:
        saver.save(1, {"w": [parameter], "one": one, "two": two})
        one.step()  # fused: unseen by the counter, too
        saver.wait()
    state = loaded(tmp_path, {"w": [torch.ones(LARGE)]}, strict=False)
    assert state["w"][0].unique().tolist() == [0]


def test_a_tensor_that_reaches_beyond_the_optimizer_s_has_no_owner() -> None:
    flat = torch.zeros(100)
    optimizer = torch.optim.SGD([torch.nn.Parameter(flat[:10])], lr=1.0)
    taken = TrainState(w=[flat, flat[:10], flat[:4], flat[5:10]], inner=optimizer, rng=False).take(ALONE)
    assert set(taken.owners) == {"w/1", "w/2"}


def test_owners_of_memory_that_overlaps() -> None:
    written = [Written(0, 10, 1), Written(4, 6, 2), Written(8, 12, 1), Written(20, 30, 2), Written(20, 25, 2)]
    extents = {"a": (0, 10), "b": (4, 6), "c": (8, 12), "d": (20, 30), "e": (20, 31), "f": (0, 0)}
    assert owners_of(extents, written) == {"c": 1, "d": 2}
    rows = torch.zeros(4, 6)[:, :2]
    assert extent(rows) == (rows.data_ptr(), rows.data_ptr() + (3 * 6 + 2) * 4)


def test_frozen_parameters_and_those_set_free_have_no_owner() -> None:
    module = torch.nn.Linear(2, 2)
    module.requires_grad_(False)
    state = TrainState(model=module, rng=False)
    assert state.take(ALONE).owners == {}
    module.requires_grad_(True)
    assert state.take(ALONE).owners == {}


@pytest.mark.parametrize(
    "state",
    [
        {"a": {1: torch.zeros(2), "1": torch.ones(2)}},
        {"@0": {"data": {"x": torch.zeros(2)}}, "data": {"x": torch.ones(2)}},
        {"": {"x": torch.zeros(2)}},
        {"a\n": {"x": torch.zeros(2)}},
    ],
)
def test_names_that_would_meet_are_refused_when_save_is_called(tmp_path: Path, state: Any) -> None:
    with pccl.Checkpointer(tmp_path) as saver:
        with pytest.raises(StateError, match="name|key"):
            saver.save(1, state)
        assert saver.steps() == []


def test_memory_that_is_not_what_the_tensor_says_is_refused() -> None:
    numbers = torch.tensor([1 + 2j, 3 - 4j]).conj()
    for view in (numbers, numbers.imag):
        with pytest.raises(StateError, match=r"a/x is a conjugated or negated view"):
            TrainState(a={"x": view}, rng=False).take(ALONE)
        TrainState(a={"x": view.resolve_conj().resolve_neg()}, rng=False).take(ALONE)


def test_nobody_begins_with_values_of_a_step_that_is_damaged(tmp_path: Path) -> None:
    with pccl.Checkpointer(tmp_path) as saver:
        saver.save(1, {"w": [torch.ones(1 << 20), torch.ones(1 << 20)]})
    flip_last_byte(tmp_path, 1)
    state = [torch.zeros(1 << 20), torch.zeros(1 << 20)]
    with pccl.Checkpointer(tmp_path) as saver:
        with pytest.raises(DamagedError, match="make it anew"):
            pccl.resume(TrainState(rng=False, w=state), saver)


def test_an_older_step_does_not_mix_with_a_newer_one_that_is_damaged(tmp_path: Path) -> None:
    class Weights(torch.nn.Module):
        def __init__(self, *names: str) -> None:
            super().__init__()
            for name in names:
                self.register_parameter(name, torch.nn.Parameter(torch.ones(1 << 20)))

    with pccl.Checkpointer(tmp_path) as saver:
        saver.save(1, {"w": Weights("a")})
        saver.save(2, {"w": Weights("a", "b")})
    flip_last_byte(tmp_path, 2)
    with pccl.Checkpointer(tmp_path) as saver:
        with pytest.raises(DamagedError, match=r"step 1 is whole and does not have w/b"):
            saver.load({"w": Weights("a", "b")}, strict=False)
        assert saver.load({"w": Weights("a")}, 1).step == 1  # a state made anew


def test_load_waits_for_saves_that_would_retire_what_it_reads(tmp_path: Path) -> None:
    state = {"w": [torch.zeros(LARGE)]}
    with pccl.Checkpointer(tmp_path, keep=1) as saver:
        for step in range(1, 5):
            state["w"][0].fill_(step)
            saver.save(step, state)
            assert saver.load(state).step == step
            assert state["w"][0].unique().tolist() == [step]


def test_moments_keep_their_dtype_beside_parameters_of_another(tmp_path: Path) -> None:
    def made() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        parameter = torch.nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))
        optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
        optimizer.state[parameter]["momentum_buffer"] = torch.full((4,), 1.0001)
        return parameter, optimizer

    with pccl.Checkpointer(tmp_path) as saver:
        saver.save(1, {"inner": made()[1]})
    for fresh in (False, True):
        parameter, optimizer = made()
        if fresh:
            optimizer.state.clear()
        loaded(tmp_path, {"inner": optimizer})
        moments = optimizer.state[parameter]["momentum_buffer"]
        assert moments.dtype == torch.float32 and moments.tolist() == torch.full((4,), 1.0001).tolist()


def test_a_digit_of_another_kind_is_a_key_as_others(tmp_path: Path) -> None:
    with pccl.Checkpointer(tmp_path) as saver:
        saver.save(1, {"a": {"²": torch.ones(3)}})
    assert loaded(tmp_path, {"a": {"²": torch.zeros(3)}})["a"]["²"].tolist() == [1, 1, 1]
    assert loaded(tmp_path, {"a": {}}, strict=False)["a"]["²"].tolist() == [1, 1, 1]


def test_the_cause_of_a_save_given_up_at_the_fence_is_told(tmp_path: Path) -> None:
    """The disk hangs, so that the save is not copied when the optimizer finds what was written."""
    parameters = [torch.nn.Parameter(torch.zeros(LARGE // 8)) for _ in range(16)]
    one, two = torch.optim.SGD(parameters[:1], lr=1.0), torch.optim.SGD(parameters[1:], lr=1.0)
    saver = pccl.Checkpointer(tmp_path, pool_bytes=64 << 20)
    saver._disk = _core.InjectedDisk("pwrite 2+ delay 700")
    saver.save(1, {"w": parameters, "one": one, "two": two})
    with torch.no_grad():
        parameters[0].add_(1)
    parameters[0].grad = torch.ones_like(parameters[0])
    one.step()
    with pytest.raises(StateError, match="past the fence"):
        saver.wait()
    saver.close()


def test_a_disk_that_hangs_does_not_keep_the_folder(tmp_path: Path) -> None:
    saver = pccl.Checkpointer(tmp_path, timeout_s=0.3)
    saver._disk = _core.InjectedDisk("pwrite 2+ delay 2500")
    try:
        saver.save(1, {"w": [torch.zeros(LARGE)]})
    except CheckpointError as late:  # a busy machine: not even copied in time
        assert "not copied" in str(late)
    with suppress(CheckpointError):
        saver.close()
    with pccl.Checkpointer(tmp_path) as other:
        other.save(1, {"w": [torch.ones(3)]})


def test_closing_does_not_wait_for_a_disk_that_hangs_and_names_what_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_thread, "END_S", 0.2)
    saver = pccl.Checkpointer(tmp_path, timeout_s=1.0)
    saver._disk = _core.InjectedDisk("pwrite 2+ delay 5000")
    saver.save(1, {"w": [torch.zeros(LARGE // 4)]})
    begun = time.monotonic()
    with pytest.raises(CheckpointError, match="step 1.* (is not durable after 1|within 1 s)"):
        saver.close()
    assert time.monotonic() - begun < 4
    assert "pccl-checkpoint was told to end and is still in: the save of step 1" in caplog.text
    with pytest.raises(BusyError):  # what is late may still write there
        pccl.Checkpointer(tmp_path)
    saver._pipeline.thread._thread.join(20)
    with pccl.Checkpointer(tmp_path) as other:
        other.save(1, {"w": [torch.ones(3)]})


def test_an_error_that_ends_the_training_tells_of_a_lost_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="diverged") as caught:
        with pccl.Checkpointer(tmp_path) as saver:
            saver._disk = _core.InjectedDisk("fdatasync * EIO")
            saver.save(1, {"w": [torch.zeros(3)]})
            raise ValueError("diverged")
    assert "a checkpoint was lost" in caught.value.__notes__[0]


def test_a_forked_worker_that_outlives_its_parent_s_saver_does_not_hold_the_folder(tmp_path: Path) -> None:
    saver = pccl.Checkpointer(tmp_path)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    try:
        saver.close()
        pccl.Checkpointer(tmp_path).close()
    finally:
        os.close(writer)
        os.waitpid(child, 0)
        os.close(reader)


ENDS_WITHOUT_CLOSE = """
import sys, torch, pccl_py as pccl
saver = pccl.Checkpointer(sys.argv[1])
saver.save(7, {"w": [torch.ones(1 << 24)]})
if sys.argv[2] == "error":
    raise ValueError("diverged")
"""


@pytest.mark.parametrize("end", ["end", "error"])
def test_a_script_that_ends_without_close_keeps_its_save(tmp_path: Path, end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDS_WITHOUT_CLOSE, tmp_path, end], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == (end == "error"), done.stderr
    with pccl.Checkpointer(tmp_path) as saver:
        assert saver.steps() == [7]


class Watched:
    """A save that is guarded: notes who comes to the fence."""

    def __init__(self) -> None:
        self.passed: list[int | None] = []

    def pass_fence(self, owner: int | None) -> None:
        self.passed.append(owner)


@pytest.fixture
def watched() -> Any:
    save = Watched()
    fence.guard(save)
    yield save
    fence.release(save)


@pytest.mark.parametrize("step", ["closure", "scaler", "plain"])
def test_each_way_to_step_an_optimizer_passes_the_fence(tmp_path: Path, watched: Watched, step: str) -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    kind = torch.optim.LBFGS if step == "closure" else torch.optim.SGD
    optimizer = kind([parameter], lr=0.1)
    with pccl.Checkpointer(tmp_path) as saver:
        saver.save(1, {"inner": optimizer})

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = parameter.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    if step == "closure":
        optimizer.step(loss)
    elif step == "scaler":
        scaler = torch.amp.GradScaler("cpu")
        scaler.scale(parameter.square().sum()).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
    else:
        loss()
        optimizer.step()
    assert watched.passed == [id(optimizer)]


def test_the_outer_step_and_state_received_pass_the_fence(watched: Watched) -> None:
    """Before they write: on stand-ins, that keep what is written."""
    weight, ahead = torch.zeros(3), torch.ones(3)
    model = SimpleNamespace(local=lambda: [weight], reshard=lambda: None)
    outer: Any = SimpleNamespace(model=model, parameters=ahead, of=lambda flat, _: [flat])
    OuterState._store(outer, slice(None), [ahead])
    assert weight.tolist() == [1, 1, 1] and watched.passed == [None]
    OuterState.rebase(outer, Fragment(0, 0, 1, 0, 3), torch.zeros(3))
    assert weight.tolist() == [2, 2, 2] and watched.passed == [None, None]
    sync: Any = SimpleNamespace(_stale={}, _ask=lambda *_: None)
    stale: Any = SimpleNamespace(index=0, entry=SimpleNamespace(chunks=1))
    StateSync._find_stale(sync, stale)
    assert watched.passed == [None, None, None]


def adapted(value: float) -> torch.nn.Sequential:
    """A frozen base, and what is trained beside it."""
    return torch.nn.Sequential(frozen(float(value)), torch.nn.Linear(1, 1, bias=False))


def test_a_frozen_base_is_copied_in_the_background_whatever_the_optimizer_does(tmp_path: Path) -> None:
    model = adapted(5)
    inner = torch.optim.SGD([model[1].weight])
    state = TrainState(rng=False, model=model, inner=inner, frozen=["model"])
    owners = state.take(ALONE).owners
    assert owners["model/0.weight"] == NOBODY and owners["model/1.weight"] == id(inner)
    with pccl.Checkpointer(tmp_path) as saver:
        saver.save(1, state)
        assert saver._pipeline._under_way[0].job.progress()[0] < model[0].weight.nbytes
        inner.step()
        saver.wait()
    into = adapted(0)
    loaded(tmp_path, TrainState(rng=False, model=into), strict=False)
    assert into[0].weight.unique().tolist() == [5]
    model[0].weight.requires_grad_(True)  # it trains from now on, by whatever steps it
    assert "model/0.weight" not in state.take(ALONE).owners
    with pytest.raises(StateError, match="no modules"):
        TrainState(model=model, inner=inner, frozen=["inner"])


@pytest.mark.parametrize("how", ["data", "numpy", "add_"])
def test_a_base_that_is_written_all_the_same_fails_that_save_by_name(tmp_path: Path, how: str) -> None:
    """torch's count of writes knows the last way alone."""
    model = adapted(5)
    state = TrainState(rng=False, model=model, inner=torch.optim.SGD([model[1].weight]), frozen=["model"])
    slow = _core.InjectedDisk("pwrite * delay 5")
    with pccl.Checkpointer(tmp_path, pool_bytes=32 << 20) as saver:
        saver._disk = slow
        saver.save(1, state)
        weight = model[0].weight
        if how == "data":
            weight.data.add_(1)
        elif how == "numpy":
            weight.detach().numpy()[:] += 1
        else:
            with torch.no_grad():
                weight.add_(1)
        with pytest.raises(StateError, match="model/0.weight was written while it was saved"):
            saver.wait()
        saver.save(2, state)
        saver.wait()
        assert saver.steps() == [2]


def test_values_that_were_not_saved_are_told_and_stay(tmp_path: Path) -> None:
    with pccl.Checkpointer(tmp_path) as saver:
        saver.save(1, {"x": {"w": torch.ones(2), "n": 5, "log": {"a": 1}}})
        into = {"w": torch.zeros(2), "n": 0, "best": 0.5, "log": {"b": 2}, "more": [torch.zeros(1)]}
        with pytest.raises(StateError, match="x/best"):
            saver.load({"x": into})
        info = saver.load({"x": into}, strict=False)
    assert sorted(info.missing) == ["x/best", "x/more/0"]
    assert into["best"] == 0.5 and into["n"] == 5 and into["log"] == {"a": 1} and "more" in into


@pytest.mark.parametrize("kind", ["state", "dict"])
def test_what_was_saved_does_not_live_longer_for_it(tmp_path: Path, kind: str) -> None:
    held = {"w": torch.ones(1 << 16)}
    memory = StorageWeakRef(held["w"].untyped_storage())
    state: Any = TrainState(rng=False, x=held) if kind == "state" else {"x": held}
    with pccl.Checkpointer(tmp_path) as saver:
        saver.save(1, state)
        saver.wait()
        del state, held
        if kind == "dict":  # it knows the last dict, for the next save
            saver.close()
        gc.collect()
        assert memory.expired()


def grown(model: torch.nn.Linear, optimizer: torch.optim.Optimizer, how: str) -> None:
    """The weight gets a row more, and with it what the optimizer keeps for it."""
    wider = torch.cat([model.weight.detach(), torch.full((1, 3), 9.0)])
    kept = optimizer.state.pop(model.weight)
    if how == "data":
        model.weight.data = wider
    else:
        model.weight = torch.nn.Parameter(wider)
        optimizer.param_groups[0]["params"][0] = model.weight
    moments = {name: torch.full((len(wider), 3), 2.0) for name in ("exp_avg", "exp_avg_sq")}
    optimizer.state[model.weight] = {"step": kept["step"], **moments}


@pytest.mark.parametrize("how", ["data", "parameter"])
def test_a_state_that_changes_its_shape_between_saves_is_saved_as_it_is(tmp_path: Path, how: str) -> None:
    model = torch.nn.Linear(3, 2, bias=False)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {"model": model, "inner": optimizer}
    before = model.weight.detach().clone()
    with pccl.Checkpointer(tmp_path, keep=9) as saver:
        saver.save(1, state)
        saver.save(2, state)  # what is known of it holds
        fence.before_write()
        grown(model, optimizer, how)
        saver.save(3, state)
        saver.wait()
    for step, rows in ((1, 2), (2, 2), (3, 3)):
        other = torch.nn.Linear(3, rows, bias=False)
        moments = torch.optim.AdamW(other.parameters())
        loaded(tmp_path, {"model": other, "inner": moments}, step=step)
        assert torch.equal(other.weight, model.weight if rows == 3 else before)
        average = moments.state[other.weight]["exp_avg"]
        assert average.shape == (rows, 3) and bool((average == 2).all()) is (rows == 3)
    with pytest.raises(StateError, match=r"model/weight is F32\[2, 3\] here and F32\[3, 3\]"):
        loaded(tmp_path, {"model": torch.nn.Linear(3, 2, bias=False)}, step=3)


def test_tensors_that_are_dropped_after_the_call_are_saved_all_the_same(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.arange(float(LARGE)))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    state: Any = {"model": torch.nn.ParameterDict({"w": weight}), "inner": optimizer}
    with pccl.Checkpointer(tmp_path, pool_bytes=32 << 20) as saver:
        saver._disk = _core.InjectedDisk("pwrite * delay 300")  # half of it has to wait for that
        saver.save(1, state)
        copied, _, total = saver.progress()
        assert copied < total
        del weight, optimizer, state
        gc.collect()
        noise = [torch.full((LARGE,), -1.0) for _ in range(2)]  # takes memory that was free
        saver.wait()
    del noise
    blank = torch.nn.ParameterDict({"w": torch.nn.Parameter(torch.zeros(LARGE))})
    loaded(tmp_path, {"model": blank}, parts=["model"])
    assert torch.equal(blank["w"], torch.arange(float(LARGE)))
