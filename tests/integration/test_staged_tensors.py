"""Tensors of a device that runs late, between real peers: what test_cuda.py does, where there is no GPU."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from pccl_py import Communicator, Config, Master, PeerLost
from pccl_py.cuda_staging import Staging
from tests.conftest import Spawn
from tests.fake_device import FakeApi
from tests.threads import in_threads

from .device_plays import ALONE, PLAYS, Kit
from .peers import PEER, QUICK, expect, together


class FakeKit(Kit):
    def __init__(self, seed: int) -> None:
        self.api = FakeApi(seed)

    def attach(self, comm: Communicator) -> None:
        comm._staging = Staging(64 << 20, self.api)

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.api.on_device(tensor)

    def kernel(self, what: Callable[[], object]) -> None:
        self.api.kernel(what)

    def read(self, tensor: torch.Tensor) -> torch.Tensor:
        self.api.synchronize()
        return tensor.clone()


CASES = [(play, peers) for play in PLAYS for peers in (2, 3)] + [(play, 1) for play in ALONE]


@pytest.mark.parametrize(("play", "peers"), CASES, ids=[f"{play.__name__}-{peers}" for play, peers in CASES])
def test_as_on_a_device(master: Master, play: Any, peers: int) -> None:
    def with_kit(comm: Communicator, index: int) -> None:
        kit = FakeKit(index)
        kit.attach(comm)
        play(comm, kit)

    together(master.address, peers, with_kit)


def test_page_locked_memory_is_a_knob(master: Master) -> None:
    assert Config.load({"PCCL_PINNED_MB": "3"}).pinned_mb == 3


SURVIVE = """
comm = Communicator(address, min_islands=3, config=config)
say("in")
while True:
    comm.all_reduce(np.full(int(sys.argv[2]), 4, np.float32))
"""


IDLE = """
comm = Communicator(address, min_islands=2, config=config)
say("in")
time.sleep(60)
"""


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("count", [1000, 1 << 20])
def test_a_killed_peer_costs_one_repetition(master: Master, spawn: Spawn, count: int, in_place: bool) -> None:
    victim = spawn("-c", PEER + SURVIVE, master.address, str(count))
    inside = threading.Event()

    def watch() -> None:
        expect(victim, "in")
        inside.set()

    def survive(index: int) -> int:
        with Communicator(master.address, min_islands=3, config=QUICK) as comm:
            kit = FakeKit(index)
            kit.attach(comm)
            tensor, after, deadline = kit.put(torch.empty(count)), 0, time.monotonic() + 40
            out = tensor if in_place else kit.put(torch.empty(count))
            while after < 10 and time.monotonic() < deadline:
                kit.kernel(lambda: tensor.fill_(index + 1.0))
                info = comm.all_reduce(tensor, out=None if in_place else out)
                alone = len(info.contributors) == 2
                assert torch.equal(kit.read(out), torch.full((count,), 3.0 if alone else 7.0))
                after += alone
                if index == 0 and inside.is_set():
                    victim.kill()
            assert comm._staging is not None and comm._staging.pool.bytes <= 2 * max(4 * count, 1 << 20)
            return after

    assert in_threads([partial(survive, 0), partial(survive, 1), watch])[:2] == [10, 10]


def test_a_loss_that_is_raised_leaves_the_tensor(master: Master, spawn: Spawn) -> None:
    victim = spawn("-c", PEER + IDLE, master.address)
    with Communicator(master.address, min_islands=2, config=QUICK) as comm:
        expect(victim, "in")
        kit = FakeKit(3)
        kit.attach(comm)
        tensor = kit.put(torch.empty(1 << 20))
        kit.kernel(lambda: tensor.fill_(1.5))
        work = comm.all_reduce(tensor, on_loss="raise", async_op=True)
        victim.kill()
        for _ in range(2):
            with pytest.raises(PeerLost):
                work.wait(timeout=30)
        assert torch.equal(kit.read(tensor), torch.full((1 << 20,), 1.5))
        comm.all_reduce(tensor)  # alone, and from memory of the pool
        assert torch.equal(kit.read(tensor), torch.full((1 << 20,), 1.5))
        assert len(kit.api.locked) == 2
