"""DiLoCo in use: failures, checkpoints, unusual models, wrong arguments."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pccl_py as pccl
from pccl_py.optim import DiLoCo, LocalSGD
from tests.conftest import ROOT
from tests.fakes import FakeComm, FakeWorld
from tests.threads import in_threads
from tests.toy import OUTER, H, alone, batches, flat, inner_step, net, reference, sgd

# ---- failures ----------------------------------------------------------------------------------------------


def test_interrupted_reduction_is_taken_up_again() -> None:
    world = FakeWorld(1)
    slow, cancelled = pccl.OperationTimeout("slow"), pccl.Cancelled("by another peer")
    world.comms[0].failures = [slow, cancelled, slow]  # what others cancel is repeated at once
    model = net()
    inner = torch.optim.AdamW(model.parameters(), lr=0.01)
    failed = 0
    with DiLoCo(world.comms[0], model, inner, sync_every=H) as outer:
        for x in batches(0, 3 * H):
            try:
                inner_step(model, inner, x)
            except pccl.CollectiveError:
                failed += 1
                while outer.pending_steps:
                    try:
                        outer.sync()
                    except pccl.CollectiveError:
                        failed += 1
    assert failed == 2
    assert torch.equal(flat(model), reference(1, 3, OUTER["nesterov"]))


@pytest.mark.parametrize("error", [pccl.Evicted, pccl.OutcomeUnknown])
def test_evicted_peer_joins_again_and_drops_its_window(error: type[Exception]) -> None:
    world = FakeWorld(1)
    model = net()
    inner = sgd(model)
    with DiLoCo(world.comms[0], model, inner, sync_every=H) as outer:
        for x in batches(0, H):
            inner_step(model, inner, x)
        before, digest = flat(model), outer.state_digest()
        world.comms[0].failures = [error("gone")]
        world.comms[0].calls.clear()
        for x in batches(1, H):
            inner_step(model, inner, x)
    assert world.comms[0].calls == ["all_reduce", "rejoin", "sync_shared_state"]
    assert torch.equal(flat(model), before) and outer.state_digest() == digest
    assert outer.pending_steps == 0 and outer.stats.rejoins == 1 and outer.windows == 1


def test_interrupted_outer_step_is_no_state_to_go_on_from() -> None:
    class Broken(torch.optim.SGD):
        calls = 0

        def step(self, closure: Any = None) -> Any:
            Broken.calls += 1
            if Broken.calls == 2:  # the first one is the rehearsal
                raise KeyboardInterrupt
            return super().step(closure)

    model = net()
    outer = DiLoCo(alone(), model, sgd(model), sync_every=H, outer_optimizer=partial(Broken, lr=1.0))
    outer.sync()
    inner_step(model, outer._inner, batches(0, 1)[0])
    with pytest.raises(KeyboardInterrupt):
        outer.sync()
    with pytest.raises(pccl.UsageError, match="interrupted"):
        outer.sync()


def test_boundary_is_passed_only_when_a_commit_says_that_somebody_waits() -> None:
    world = FakeWorld(1)
    comm = world.comms[0]
    model = net()
    inner = sgd(model)
    with DiLoCo(comm, model, inner, sync_every=1):
        comm.calls.clear()
        inner_step(model, inner, batches(0, 1)[0])
        assert comm.calls == ["all_reduce"]
        comm.waiting = 1
        comm.calls.clear()
        inner_step(model, inner, batches(0, 1)[0])
        assert comm.calls == ["all_reduce", "update_topology", "sync_shared_state"]


# ---- checkpoint --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OUTER)
@pytest.mark.parametrize("at", [0, H, H + 1, 2 * H + 3])
def test_save_and_load_anywhere_goes_on_bit_for_bit(kind: str, at: int) -> None:
    saved: dict[str, Any] = {}
    digests: dict[str, list[str]] = {"through": [], "again": []}
    models = []
    for run in ("through", "again"):
        model = net()
        inner = torch.optim.AdamW(model.parameters(), lr=0.01)
        outer = DiLoCo(alone(), model, inner, sync_every=H, outer_optimizer=OUTER[kind])
        if run == "again":
            model.load_state_dict(saved["model"])
            inner.load_state_dict(saved["inner"])
            outer.load_state_dict(saved["outer"])
        with outer:
            for step, x in enumerate(batches(0, 5 * H)):
                if run == "through" and step == at:
                    saved = {"model": _clone(model.state_dict()), "inner": _clone(inner.state_dict())}
                    saved["outer"] = outer.state_dict()
                if run == "through" or step >= at:
                    inner_step(model, inner, x)
                    if step >= at and not outer.pending_steps:
                        digests[run].append(outer.state_digest())
        models.append(flat(model))
    assert digests["through"] == digests["again"] and digests["again"]
    assert torch.equal(models[0], models[1])


def _clone(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _clone(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_clone(value) for value in tree]
    return tree.clone() if isinstance(tree, Tensor) else tree


def test_load_refuses_what_is_not_its_own() -> None:
    model = net()
    outer = DiLoCo(alone(), model, sgd(model), sync_every=H)
    saved = outer.state_dict()
    other = DiLoCo(alone(), model, sgd(model), sync_every=H, outer_optimizer=OUTER["adam"])
    with pytest.raises(pccl.UsageError, match="another"):
        other.load_state_dict(saved)
    with pytest.raises(pccl.UsageError, match="LocalSGD"):
        outer.load_state_dict({**saved, "kind": "LocalSGD"})
    outer.sync()
    with pytest.raises(pccl.UsageError, match="first sync"):
        outer.load_state_dict(saved)


def test_what_is_no_saved_state_is_named_and_changes_nothing() -> None:
    model = net()
    outer = DiLoCo(alone(), model, sgd(model), sync_every=H)
    saved, before = outer.state_dict(), outer.state_digest()
    saved["counters"]["tokens"] = 5
    halves = {name: value[:1] for name, value in saved["parameters"].items()}
    wrong: list[tuple[Any, str]] = [
        (None, "NoneType.*what state_dict"),
        ({key: saved[key] for key in saved if key != "counters"}, "'counters' is missing"),
        ({key: saved[key] for key in saved if key != "tracks"}, "'tracks' is missing"),
        ({**saved, "parameters": {}}, "'0.weight' is missing"),
        ({**saved, "parameters": halves}, r"'0.weight' is \[1, 3\] and not \[5, 3\]"),
        ({**saved, "buffers": {}}, "'momentum_buffer' is missing"),
    ]
    for state, text in wrong:
        with pytest.raises(pccl.UsageError, match=text):
            outer.load_state_dict(state)
    assert outer.state_digest() == before and outer.tokens == 0


# ---- models ------------------------------------------------------------------------------------------------


def test_parameters_that_share_memory_are_refused() -> None:
    """Each would be averaged, and written over the other. Ends that meet share nothing."""
    memory = torch.zeros(10)

    def of(*parts: Tensor) -> nn.Module:
        return nn.ParameterList([nn.Parameter(part) for part in parts])

    for model in (of(memory[:6], memory[5:]), of(memory, memory)):
        with pytest.raises(pccl.UsageError, match="'0' and parameter '1' share memory: .* one Parameter"):
            DiLoCo(alone(), model, sgd(model), sync_every=H)
    for model in (of(memory[:5], memory[5:]), of(memory[::2], memory[1::2]), of(memory[:0], memory)):
        DiLoCo(alone(), model, sgd(model), sync_every=H)


def test_bfloat16_model_has_a_float32_outer_state() -> None:
    model = nn.Linear(4, 4).bfloat16()
    inner = sgd(model, lr=1.0)
    start = flat(model)
    delta = torch.full([20], 2.0**-10)
    with DiLoCo(alone(), model, inner, sync_every=1, outer_optimizer=OUTER["plain"]) as outer:
        with torch.no_grad():
            for p in model.parameters():
                p.zero_()
                p.grad = torch.zeros_like(p)
        inner.step()  # local is 0: the pseudo-gradient is what the parameters were
        shared = torch.cat([t.reshape(-1) for t in outer.outer_parameters().values()])
    assert shared.dtype == torch.float32 and delta.shape == start.shape
    torch.testing.assert_close(shared, start - 0.7 * start, rtol=1e-6, atol=0)
    assert torch.equal(flat(model), shared.bfloat16().float())


def test_tied_and_frozen_parameters() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    frozen = model[2].weight.clone()
    outer = DiLoCo(alone(), model, sgd(model), sync_every=1)
    assert sorted(outer.outer_parameters()) == ["0.bias", "0.weight", "1.bias"]
    outer.sync()
    outer._inner.zero_grad()
    model(torch.ones(2, 3)).sum().backward()
    outer._inner.step()
    outer.sync()
    assert torch.equal(model[2].weight, frozen) and model[1].weight is model[0].weight


def test_values_loaded_after_construction_are_the_ones_that_count() -> None:
    model = net(0)
    outer = DiLoCo(alone(), model, sgd(model), sync_every=H)
    model.load_state_dict(net(1).state_dict())
    outer.sync()
    assert torch.equal(flat(model), flat(net(1)))


def test_changed_shape_is_named() -> None:
    model = net()
    outer = DiLoCo(alone(), model, sgd(model), sync_every=H)
    model[0].bias.data = torch.zeros(1)  # would be broadcast silently
    with pytest.raises(pccl.UsageError, match=r"'0.bias' was \[5\] and is \[1\]"):
        outer.sync()


def test_parameters_that_change_between_windows_are_named() -> None:
    model = net()
    outer = DiLoCo(alone(), model, sgd(model), sync_every=H)
    outer.sync()
    model[0].weight.requires_grad_(False)
    with pytest.raises(pccl.UsageError, match="'0.weight' required a gradient"):
        outer.sync()
    model[0].weight.requires_grad_(True)
    model[2].weight = nn.Parameter(torch.zeros(2, 5))
    with pytest.raises(pccl.UsageError, match="'2.weight' is another"):
        outer.sync()


def test_one_model_has_one_optimizer_of_the_family() -> None:
    model = net()
    first = DiLoCo(alone(), model, sgd(model), sync_every=H)
    second = LocalSGD(alone(), model, sgd(model), sync_every=H)
    first.sync()
    with pytest.raises(pccl.UsageError, match=r"the model belongs to <DiLoCo of 32 parameters"):
        second.sync()
    first.close()
    second.sync()


# ---- arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sync_every": 0}, "sync_every=0"),
        ({"sync_every": 2.5}, "sync_every=2.5"),
        ({"sync_every": True}, "sync_every=True"),
        ({"verify_every": -1}, "verify_every=-1"),
        ({"inner_state_on_join": "drop"}, "'keep'"),
        ({"quantization": "int5"}, "'int5'"),
        ({"error_feedback": True}, "without quantization"),
        ({"non_finite": "keep"}, "'raise' or 'skip'"),
        ({"weighting": "loss"}, "weighting='loss'"),
        ({"merge": "median"}, "'mean' or 'rda'"),
        ({"outer_momentum_clip": 0}, "above 0"),
        ({"bucket_cap_mb": -1}, "above 0"),
        ({"backup_device": "nowhere"}, "backup_device='nowhere'"),
        ({"backup_device": "meta"}, "no values"),
        ({"outer_optimizer": lambda parameters: None}, "no torch optimizer"),
        ({"outer_optimizer": lambda ps: torch.optim.SGD([list(ps)[0]], lr=1.0)}, "exactly the parameters"),
        ({"outer_optimizer": lambda ps: torch.optim.LBFGS(ps)}, "without arguments"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], text: str) -> None:
    model = net()
    with pytest.raises(pccl.UsageError, match=text):
        DiLoCo(alone(), model, sgd(model), **{"sync_every": H, **options})


def test_wrong_models() -> None:
    model = net()
    with pytest.raises(pccl.UsageError, match="no parameter"):
        DiLoCo(alone(), nn.Tanh(), sgd(model), sync_every=H)
    with pytest.raises(pccl.UsageError, match="meta"):
        DiLoCo(alone(), nn.Linear(2, 2, device="meta"), sgd(model), sync_every=H)
    with pytest.raises(pccl.UsageError, match="complex64"):
        DiLoCo(alone(), nn.Linear(2, 2, dtype=torch.complex64), sgd(model), sync_every=H)
    with pytest.raises(pccl.UsageError, match="torch optimizer"):
        DiLoCo(alone(), model, model, sync_every=H)  # type: ignore[arg-type]


def test_steps_before_the_first_sync_are_refused() -> None:
    model = net()
    outer = DiLoCo(alone(), model, sgd(model), sync_every=H)
    inner_step(model, outer._inner, batches(0, 1)[0])
    with pytest.raises(pccl.UsageError, match="1 inner steps before"):
        outer.sync()


def test_hooks_end_with_the_block_and_with_the_object() -> None:
    model = net()
    inner = sgd(model)
    comm = alone()
    with DiLoCo(comm, model, inner, sync_every=1) as outer:
        pass
    inner_step(model, inner, batches(0, 1)[0])
    assert outer.pending_steps == 1 and "all_reduce" not in comm.calls
    outer.close()
    inner_step(model, inner, batches(0, 1)[0])
    assert outer.pending_steps == 1
    DiLoCo(comm, model, inner, sync_every=1)
    inner_step(model, inner, batches(0, 1)[0])  # a dead optimizer does not count


def test_one_inner_optimizer_has_one_diloco() -> None:
    model = net()
    inner = sgd(model)
    first = DiLoCo(alone(), model, inner, sync_every=H)
    with pytest.raises(pccl.UsageError, match=r"inner has its <DiLoCo of 32 parameters.*close\(\) that one"):
        DiLoCo(alone(), model, inner, sync_every=H)
    first.close()
    second = DiLoCo(alone(), model, inner, sync_every=H)
    first.close()  # takes nothing from the second one
    with pytest.raises(pccl.UsageError, match="close"):
        DiLoCo(alone(), model, inner, sync_every=H)
    with second:
        for x in batches(0, H):
            inner_step(model, inner, x)
    assert second.windows == 1
    del second
    assert DiLoCo(alone(), model, inner, sync_every=H).windows == 0


def test_who_never_synchronizes_is_warned_once() -> None:
    model = net()
    outer = DiLoCo(alone(), model, sgd(model), sync_every=H)
    with pytest.warns(UserWarning, match=f"{H} inner steps and no sync.*`with`") as caught:
        for x in batches(0, 3 * H):
            inner_step(model, outer._inner, x)
    assert len(caught) == 1


def test_who_synchronizes_is_not_warned() -> None:
    """Neither by hand, nor behind the block, nor in it."""
    model = net()
    outer = DiLoCo(alone(), model, sgd(model), sync_every=H)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in [None, *batches(0, 2 * H)]:
            if x is not None:
                inner_step(model, outer._inner, x)
            if outer.pending_steps in (0, H):
                outer.sync()
        with outer:
            inner_step(model, outer._inner, batches(0, 1)[0])
        for x in batches(0, 2 * H):
            inner_step(model, outer._inner, x)


def test_zero_inner_state_on_join() -> None:
    def peer(comm: FakeComm, rank: int, choice: str) -> int:
        model = net(rank)
        inner = torch.optim.AdamW(model.parameters(), lr=0.01)
        inner_step(model, inner, batches(rank, 1)[0])
        outer = DiLoCo(comm, model, inner, sync_every=H, inner_state_on_join=choice)
        if rank == 0:
            outer.load_state_dict(DiLoCo(alone(), model, sgd(model), sync_every=H).state_dict())
        outer.sync()
        return len(inner.state)

    for choice, left in (("zero", 0), ("keep", 4)):
        jobs = [partial(peer, c, r, choice) for r, c in enumerate(FakeWorld(2).comms)]
        assert in_threads(jobs) == [4, left]


def test_importing_the_package_does_not_import_torch() -> None:
    source = "import sys, pccl_py.optim; print('torch' in sys.modules, callable(pccl_py.optim.DiLoCo))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
