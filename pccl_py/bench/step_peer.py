"""A peer that trains a small model, by this library and by others, for `bench ddp` and `bench heal`.

Needs torch, which the bench has imported before the processes are forked.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from ..communicator import Communicator
from ..parallel import ElasticSampler, elastic_data_parallel
from .group import GLOO
from .timed_peer import Operation, TimedPeer

MODULE, DDP, ON_BACKEND = "ours", "ours in DDP", "DDP on backend pccl"
SAMPLES, PER_PEER, LAYERS = 1 << 16, 16, 4
STEPS_CHECKED = 3


class StepPeer(TimedPeer):
    """`prepare` models of a size, which are the same for every way; then steps of them."""

    def __init__(self, host: int, index: int, peers: int, **settings: Any) -> None:
        super().__init__(host, index, peers, **settings)
        torch.set_num_threads(1)
        self._right: list[torch.Tensor] = []
        self._alone: Any = None  # the process group of this rank

    def prepare(self, size: int, ways: list[str]) -> None:
        """`size`: bytes of parameters."""
        self._x = torch.randn(PER_PEER, _width(size), generator=torch.Generator().manual_seed(self._index))
        self._steps = {way: self._step_of(way, size) for way in ways}

    def _step_of(self, way: str, size: int) -> tuple[torch.nn.Module, Operation]:
        net = model(size)
        wrapped: torch.nn.Module = net
        if way == DDP:
            wrapped = DistributedDataParallel(net, process_group=self._group())
        elif way == ON_BACKEND:
            wrapped = DistributedDataParallel(net, process_group=self._backend)
        elif way == GLOO:
            wrapped = DistributedDataParallel(net)
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
        run: Any = None
        if way in (MODULE, DDP):
            sampler = ElasticSampler(SAMPLES, global_batch=PER_PEER * self._peers)
            run = elastic_data_parallel(wrapped, self.comm, optimizer, sampler=sampler)

        def step() -> None:
            if run is not None:
                run.boundary()
            optimizer.zero_grad()
            wrapped(self._x).square().mean().backward()
            optimizer.step()

        return net, step

    def _group(self) -> Any:
        if self._alone is None:
            groups = [self._gloo.new_group([rank]) for rank in range(self._peers)]
            self._alone = groups[self._index]
        return self._alone

    def check(self, way: str) -> bool:
        """Some steps from the start, against those of the first way that is checked."""
        net, step = self._steps[way]
        begin = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        for _ in range(STEPS_CHECKED):
            step()
        found = [p.detach().clone() for p in net.parameters()]
        net.load_state_dict(begin)
        self._right = self._right or found
        return all(
            torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(found, self._right, strict=True)
        )

    def forget(self) -> None:
        """Another size begins."""
        self._right = []

    def _fill(self) -> None:
        pass

    def _operation(self, way: str) -> Operation:
        return self._steps[way][1]


class TrainingPeer(TimedPeer):
    """Trains with AdamW, whose state is twice the parameters, until something happens to the run. `batch`:
    samples of all peers together."""

    def __init__(self, host: int, size: int, batch: int = 48, **settings: Any) -> None:
        super().__init__(host, 0, 0, **settings)
        torch.set_num_threads(1)
        self._net = model(size)
        self._optimizer = torch.optim.AdamW(self._net.parameters(), lr=1e-4)
        self._sampler = ElasticSampler(SAMPLES, global_batch=batch)
        self._x = torch.randn(batch, _width(size), generator=torch.Generator().manual_seed(1))
        self._run: Any = None
        self._boundary = self._whole = 0.0

    def id(self) -> int:
        return self.comm.id

    def ready(self, value: float | None = None) -> None:
        """The process is up, with its model; `value`: of all parameters."""
        with torch.no_grad():
            for p in self._net.parameters():
                if value is not None:
                    p.fill_(value)

    def enter(self, address: str, min_islands: int = 1) -> dict[str, Any]:
        """Joins, and takes the state: when the call began, and when it was admitted."""
        times: dict[str, Any] = {}

        def join() -> Communicator:
            times.update(self.join(address=address, min_islands=min_islands))
            return self.comm

        self._run = elastic_data_parallel(self._net, join, self._optimizer, sampler=self._sampler)
        self._whole = time.monotonic()
        return {name: times[at] for name, at in (("id", "id"), ("began", "began"), ("joined", "ended"))}

    def whole(self) -> float:
        """When it had all of the state."""
        return self._whole

    def steps(self, count: int) -> list[float]:
        """Seconds of each."""
        return [self._timed_step() for _ in range(count)]

    def train(self) -> None:
        """For ever: it is killed in here."""
        while True:
            self._step()

    def train_until_without(self, peer: int) -> dict[str, Any]:
        """When the first step without it was applied."""
        while True:
            self._step()
            if peer not in self._run.contributors:
                return {"ended": time.monotonic(), "digest": self._run.digest()}

    def train_until_with(self, count: int) -> dict[str, Any]:
        """Until so many peers contribute: seconds of the longest step, and of the longest boundary."""
        seconds, self._boundary = [], 0.0
        while True:
            seconds.append(self._timed_step())
            if len(self._run.contributors) == count:
                digest = self._run.digest()
                return {"worst": max(seconds), "boundary": self._boundary, "digest": digest}

    def _timed_step(self) -> float:
        began = time.perf_counter()
        self._step()
        return time.perf_counter() - began

    def _step(self) -> None:
        began = time.perf_counter()
        self._run.boundary()
        self._boundary = max(self._boundary, time.perf_counter() - began)
        x = self._x[: max(1, len(self._sampler.positions(self.comm.id)))]
        self._optimizer.zero_grad()
        self._net(x).square().mean().backward()
        self._optimizer.step()


def model(size: int) -> torch.nn.Sequential:
    """Square layers, `size` bytes in all or a little less; the same on every peer."""
    torch.manual_seed(0)
    width = _width(size)
    return torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(LAYERS)))


def _width(size: int) -> int:
    return max(1, math.isqrt(size // 4 // LAYERS))
