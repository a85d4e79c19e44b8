"""The order of copies, events and kernels, on a fake device whose streams run late and in any order."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pccl_py import OperationTimeout, UsageError, cuda_staging
from pccl_py.cuda_api import CudaApi
from pccl_py.cuda_staging import Staging, on_device
from pccl_py.pinned_pool import PinnedPool
from pccl_py.tensors import Operand, operands
from tests.fake_device import FakeApi

MIB = 1 << 20


def of_host(items: list[Operand], dtype: Any = np.float32) -> list[tuple[Any, Any]]:
    """(input, output) of each operand, as the core sees them."""

    def view(address: int, count: int) -> Any:
        size = count * np.dtype(dtype).itemsize
        raw = (ctypes.c_uint8 * size).from_address(address) if count else bytearray()
        return np.frombuffer(raw, dtype)

    return [(view(item.input, item.elements), view(item.output, item.elements)) for item in items]


def stage(
    staging: Staging, inputs: Any, outputs: Any = None, *, one_copy: bool = False, seconds: float = 5
) -> Any:
    items = operands(inputs, outputs)
    given = inputs if outputs is None else outputs
    return staging.stage(items, inputs, given, one_copy=one_copy, seconds=seconds)


def test_what_is_not_on_a_device_is_left_alone() -> None:
    assert stage(Staging(MIB, FakeApi()), [torch.ones(3), np.ones(3)]) is None
    assert not on_device(torch.ones(3), [np.ones(3), None], None)


def test_the_order_of_everything() -> None:
    api = FakeApi()
    tensor = api.on_device(torch.ones(1000))
    staged = stage(Staging(8 * MIB, api), tensor)
    assert api.log == [
        "main: mark event1",
        "side1: wait event1",
        "side1: copy 4000",
        "side1: uses 4000",
        "side1: mark event2",
    ]
    api.log.clear()
    staged.deliver()
    assert api.log == [
        "main: mark event3",
        "side2: wait event3",
        "side2: copy 4000",
        "side2: uses 4000",
        "side2: mark event4",
        "main: wait event4",
    ]
    api.log.clear()
    other = api.use()
    staged.deliver()  # whoever waits again, on another stream
    assert api.log == [f"{other.name}: wait event4"]


def test_large_tensors_go_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_staging, "CHUNK_BYTES", 4096)
    api = FakeApi()
    tensors = [api.on_device(torch.arange(n, dtype=torch.float64)) for n in (1300, 0, 5)]
    staged = stage(Staging(8 * MIB, api), tensors)
    copies = [line for line in api.log if "copy" in line]
    assert copies == ["side1: copy 4096", "side1: copy 4096", "side1: copy 2208", "side1: copy 40"]
    for (host, _), tensor in zip(of_host(staged.items, np.float64), tensors, strict=True):
        assert np.array_equal(host, tensor.numpy())


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    out=st.sampled_from(["in place", "apart", "one copy", "to the host", "from the host"]),
    counts=st.lists(st.integers(0, 300), min_size=1, max_size=4),
    bytes_max=st.sampled_from([0, 8 * MIB]),
    rounds=st.integers(1, 3),
    change=st.booleans(),
)
def test_values_arrive_whatever_runs_first(
    seed: int, out: str, counts: list[int], bytes_max: int, rounds: int, change: bool
) -> None:
    """Kernels before the call write the inputs late; kernels after the wait read the results."""
    api = FakeApi(seed)
    staging = Staging(bytes_max, api)
    hosted = (lambda t: t) if out == "from the host" else api.on_device
    inputs = [hosted(torch.full((n,), -1.0)) for n in counts]
    outputs = None
    if out in ("apart", "to the host", "from the host"):
        outputs = [torch.full((n,), -2.0) for n in counts]
        outputs = outputs if out == "to the host" else [api.on_device(t) for t in outputs]
    results: list[torch.Tensor] = []
    for turn in range(rounds):
        for i, tensor in enumerate(inputs):
            if out == "from the host":
                tensor.fill_(10 * turn + i)
            else:
                api.kernel(lambda t=tensor, v=10 * turn + i: t.fill_(v))  # type: ignore[misc]
        staged = stage(staging, inputs, outputs, one_copy=out == "one copy")
        for i, (host, result) in enumerate(of_host(staged.items)):
            assert np.all(host == 10 * turn + i), "the operation began before the copy had arrived"
            result[:] = host + 1000
        if change:  # wait() is called with another current stream, which comes after the one before
            before = api.mark(api.current(0))
            api.wait(api.use(), before)
        staged.deliver()
        for target in outputs or inputs:
            api.kernel(lambda t=target: results.append(t.clone()))  # type: ignore[misc]
    api.synchronize()
    expected = [(count, 1000.0 + 10 * turn + i) for turn in range(rounds) for i, count in enumerate(counts)]
    got = sorted(results, key=lambda t: float(t[0]) if len(t) else 0.0)
    assert sorted(len(t) for t in got) == sorted(count for count, _ in expected)
    for value, tensor in zip([v for n, v in expected if n], [t for t in got if len(t)], strict=True):
        assert torch.all(tensor == value), "a kernel after the wait read something else than the result"


def test_nothing_reaches_the_device_when_it_failed() -> None:
    api = FakeApi()
    tensor = api.on_device(torch.ones(10))
    staged = stage(Staging(8 * MIB, api), tensor)
    of_host(staged.items)[0][1][:] = 7
    api.log.clear()
    staged.discard()
    staged.discard()
    api.synchronize()
    assert api.log == []
    assert torch.equal(tensor, torch.ones(10))


def test_a_device_that_is_not_done_in_time() -> None:
    api = FakeApi()
    tensor = api.on_device(torch.ones(10))
    api.current(0).queue.append(("wait", api.mark(api.side(0))))
    api._streams[-1].queue.insert(0, ("wait", type(api.mark(api.side(0)))("never")))
    staging = Staging(8 * MIB, api)
    with pytest.raises(OperationTimeout, match="has not done the work that its tensors wait for within"):
        stage(staging, tensor, seconds=0.05)
    assert staging.pool.bytes == 0, "memory that copies may still write to is given to nobody"


def test_synchronize_blocks_the_host() -> None:
    api = FakeApi()
    tensor = api.on_device(torch.zeros(10))
    staged = stage(Staging(8 * MIB, api), tensor)
    of_host(staged.items)[0][1][:] = 3
    staged.deliver()
    staged.synchronize(5)
    assert torch.equal(tensor, torch.full((10,), 3.0))


# ---- page-locked memory ----


def test_slabs_are_used_again_once_copies_are_done() -> None:
    api = FakeApi()
    pool = PinnedPool(api, 4 * MIB)
    one = pool.take(3 * MIB // 2)
    assert one.locked and one.size == 2 * MIB and len(one.memory) == 2 * MIB
    stream = api.side(0)
    stream.queue.append(("do", lambda: None))
    event = api.mark(stream)
    pool.give(one, [event])
    stream.queue.insert(0, ("wait", api.mark(gate := api.side(0))))
    gate.queue.insert(0, ("wait", type(event)("later")))
    other = pool.take(2 * MIB)
    assert other is not one, "a copy still reads it"
    gate.queue.pop(0)
    api.synchronize()
    assert pool.take(MIB + 1) is one
    assert api.locked == [2 * MIB, 2 * MIB] and pool.bytes == 4 * MIB


def test_it_is_bounded() -> None:
    api = FakeApi()
    pool = PinnedPool(api, 4 * MIB)
    slabs = [pool.take(size) for size in (2 * MIB, MIB, 10, 1)]
    assert [slab.locked for slab in slabs] == [True, True, True, False]
    assert pool.bytes == 4 * MIB and api.unlocked == [1]
    assert not pool.take(5 * MIB).locked
    for slab in slabs:
        pool.give(slab)
    del slabs, slab
    assert pool.bytes == 4 * MIB
    large = pool.take(4 * MIB)
    assert large.locked, "what nobody uses makes room for another size"
    assert pool.bytes == 4 * MIB and api.released > 0


def test_a_slab_that_is_dropped_leaves_room() -> None:
    pool = PinnedPool(FakeApi(), 4 * MIB)
    slab = pool.take(4 * MIB)
    assert slab.locked and not pool.take(1).locked
    del slab
    assert pool.bytes == 0 and pool.take(1).locked


def test_too_little_page_locked_memory_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    api = FakeApi()
    staging = Staging(0, api)
    for _ in range(2):
        stage(staging, api.on_device(torch.ones(4)))
    assert [record.message for record in caplog.records if "PCCL_PINNED_MB" in record.message] != []
    assert len(caplog.records) == 1


def test_a_torch_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        UsageError, match=r"built without CUDA, or no device is visible\): pass tensor.cpu\(\)"
    ):
        CudaApi()
