"""CUDA tensors, where there is a GPU: `python -m pytest tests/integration/test_cuda.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pccl_py import Checkpointer, Communicator, Config, Master, UsageError

from .device_plays import PLAYS, Kit, waits_for_kernels
from .peers import together

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

MIB = 1 << 20


class CudaKit(Kit):
    def attach(self, comm: Communicator) -> None:
        pass

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.cuda()

    def kernel(self, what: Callable[[], object]) -> None:
        what()

    def read(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.cpu()  # in the order of the current stream


@pytest.mark.deadline(120)
@pytest.mark.parametrize("peers", [2, 3])
@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.__name__)
def test_on_a_device(master: Master, play: Any, peers: int) -> None:
    together(master.address, peers, lambda comm, _: play(comm, CudaKit()), limit_s=110)


@pytest.mark.parametrize("other_stream", [False, True])
def test_slow_kernels_come_first(master: Master, other_stream: bool) -> None:
    def play(comm: Communicator, index: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream() if other_stream else torch.cuda.current_stream()):
            for _ in range(5):
                waits_for_kernels(comm, CudaKit(), lambda _: torch.cuda._sleep(100_000_000))

    together(master.address, 2, play)


def test_memory_freed_right_after_the_wait_is_not_overwritten(master: Master) -> None:
    """The caching allocator gives freed blocks away at once, maybe before side streams are done with them."""

    def play(comm: Communicator, index: int) -> None:
        for _ in range(20):
            comm.all_reduce(torch.ones(4 * MIB, device="cuda"))
            fresh = torch.full((4 * MIB,), 7.0, device="cuda")
            assert bool((fresh == 7).all())

    together(master.address, 2, play)


def test_large_tensors_and_little_page_locked_memory(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    def play(comm: Communicator, index: int) -> int:
        tensor = torch.full((20 * MIB,), float(comm.rank), device="cuda")
        comm.all_reduce(tensor)
        assert bool((tensor == 1).all())
        assert comm._staging is not None
        return comm._staging.pool.bytes

    assert together(master.address, 2, play) == [256 * MIB, 256 * MIB]  # 80 MiB in, 80 MiB out: powers of two

    monkeypatch.setattr("tests.integration.peers.QUICK", Config(heartbeat_ms=100, pinned_mb=1))
    assert together(master.address, 2, play) == [0, 0]


def test_refused(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        reduce = partial(comm.all_reduce, torch.ones(4, 4, device="cuda").t())
        with pytest.raises(UsageError, match="not contiguous"):
            reduce()
        both = torch.ones(8, device="cuda")
        with pytest.raises(UsageError, match="share memory"):
            comm.all_reduce([both[:5], both[4:]])

    together(master.address, 1, play)


@pytest.mark.parametrize("pool_bytes", [64 << 20, 512 << 20])
def test_checkpoints_of_a_device_hold_the_moment_of_the_call(tmp_path: Path, pool_bytes: int) -> None:
    module = torch.nn.Sequential(*(torch.nn.Linear(2048, 2048) for _ in range(8)), torch.nn.BatchNorm1d(2048))
    optimizer = torch.optim.AdamW(module.cuda().parameters(), lr=1e-2)
    state = {"model": module, "inner": optimizer}

    def train() -> None:
        module(torch.randn(16, 2048, device="cuda")).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    train()
    with Checkpointer(tmp_path, keep=9, pool_bytes=pool_bytes, timeout_s=60) as saver:
        moments = []
        for step in range(4):
            moments.append([value.clone() for value in module.state_dict().values()])
            saver.save(step, state)
            train()
        saver.wait()
        for step, moment in enumerate(moments):
            saver.load(state, step)
            assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), moment, strict=True))
