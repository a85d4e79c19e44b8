"""A process of `bench snapshot` whose snapshots are coded with those of others: a trainer with a keeper and a
failure domain of its own, as on a host of its own."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..communicator import Communicator
from ..snapshot import ask
from ..snapshot.snapshots import Snapshots
from ..state.train_state import TrainState
from . import namespace
from .crew import WorkerFailed
from .peers import CONNECT_S

SIDE = 1024
TENSOR_BYTES = 4 * SIDE * SIDE
RUN = "bench"
CODE_S = 120.0
ORPHAN_S = 60.0
WIDTH, DEPTH, BATCH = 512, 8, 128


class CodedTrainer:
    """`place`: the folder of its keeper's socket. `host`: in the network namespace of that process, or that
    path. `transport`: of keepers."""

    def __init__(self, host: int | str, number: int, place: str, transport: str = "auto") -> None:
        namespace.enter(host) if isinstance(host, int) else namespace.enter_path(host)
        torch.set_num_threads(1)
        os.environ["XDG_RUNTIME_DIR"] = place
        os.environ["PCCL_TRANSPORT"] = transport
        self._number, self._name = number, f"host{number}"
        self._comm: Communicator | None = None
        self._snapshots: Snapshots | None = None

    def make(self, size: int) -> None:
        """A state of so many bytes, of which each tensor is another one."""
        generator = torch.Generator().manual_seed(self._number)
        first = torch.rand(SIDE, SIDE, generator=generator)
        count = max(size // TENSOR_BYTES, 1)
        self._held = nn.ParameterList(nn.Parameter(first + number) for number in range(count))
        self._state = TrainState(model=self._held, rng=False)

    def make_training(self) -> int:
        """A model and AdamW, as its state; how many bytes that is."""
        torch.manual_seed(self._number)
        layers = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU()) for _ in range(DEPTH)]
        self._model = nn.Sequential(*layers)
        self._optimizer = torch.optim.AdamW(self._model.parameters())
        self._step = 0
        self._train_once()
        self._state = TrainState(model=self._model, inner=self._optimizer)
        return 3 * sum(parameter.nbytes for parameter in self._model.parameters())

    def _train_once(self) -> None:
        self._step += 1
        given = torch.rand(BATCH, WIDTH)
        (self._model(given) - given).square().mean().backward()
        self._optimizer.step()
        self._optimizer.zero_grad()

    def train(self, steps: int, every: int) -> dict[str, Any]:
        """Seconds, with a snapshot `every` so many steps, 0: none; whether the last one was coded then."""
        begun = time.perf_counter()
        for _ in range(steps):
            self._train_once()
            if every and self._step % every == 0:
                self.snapshots.take(self._step, self._state)
        seconds = time.perf_counter() - begun
        if every:
            self.snapshots.wait()
        last, status = self._step - self._step % max(every, 1), self.snapshots.status()
        return {"seconds": seconds, "right": not every or (status.coded == last and status.failed == 0)}

    def join(self, address: str, parity: int, founders: int = 1, lazy: bool = False, **settings: Any) -> None:
        self._comm = Communicator(address, min_islands=founders, timeout=CONNECT_S, **settings)
        self._snapshots = Snapshots(
            self._comm,
            parity=parity,
            run=RUN,
            trainer=self._name,
            keeper=self._name,
            domain=self._name,
            lazy=lazy,
            code_s=CODE_S,
            orphan_s=ORPHAN_S,
        )

    @property
    def snapshots(self) -> Snapshots:
        assert self._snapshots is not None, "join() first"
        return self._snapshots

    def attach(self) -> None:
        """Starts its keeper, without memory."""
        self.snapshots._buffers.attach()

    def prepare(self) -> None:
        self.snapshots.prepare(self._state)

    def change(self) -> None:
        """Every bit of the state may be another one."""
        with torch.no_grad():
            for parameter in self._held:
                parameter.mul_(1.0009765625).add_(0.125)

    def take(self, step: int) -> dict[str, Any]:
        """When the call began, when the keeper had all, and when it was coded, on the system's clock."""
        begun = time.monotonic()
        self.snapshots.take(step, self._state)
        info = self.snapshots.wait()
        coded, status = time.monotonic(), self.snapshots.status()
        assert info is not None
        right = status.coded == step and not status.fault
        told = {"begun": begun, "complete": begun + info.complete_s, "coded": coded, "bytes": info.bytes}
        return told | {"right": right, "losses": status.losses}

    def digest(self) -> list[int]:
        """Of every bit of the state."""
        return [zlib.crc32(memoryview(parameter.detach().numpy()).cast("B")) for parameter in self._held]

    def restore(self, address: str, parity: int, **settings: Any) -> dict[str, Any]:
        """In a new process, whose host has no keeper: when it began, and when the state had all of it."""
        begun = time.monotonic()
        self.join(address, parity, **settings)
        joined = time.monotonic()
        info = self.snapshots.restore(self._state)
        return {"begun": begun, "joined": joined, "ended": time.monotonic(), "step": info.step}

    def admit(self) -> None:
        """Goes on, as a training does, until somebody new is there."""
        assert self._comm is not None
        before, until = {peer.id for peer in self._comm.peers()}, time.monotonic() + CONNECT_S
        while {peer.id for peer in self._comm.peers()} <= before:
            if time.monotonic() > until:
                raise WorkerFailed(f"nobody has come within {CONNECT_S:g} s")
            self._comm.update_topology()
            time.sleep(0.005)

    def is_coded(self, step: int) -> bool:
        """Waits until its keeper has a part of a generation with that step."""
        return not self.snapshots._buffers.await_coded(step, CODE_S)

    def keeper(self) -> int:
        """The process id of its keeper."""
        told = [one for one in map(ask.summary, ask.sockets()) if one is not None]
        return next(one.pid for one in told if one.keeper == self._name)

    def keeper_bytes(self) -> int:
        """Of its memory, with what others map as well; without files."""
        pid, shared = self.keeper(), {}
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if "memfd:" in os.readlink(fd):
                    facts = fd.stat()
                    shared[facts.st_ino] = facts.st_blocks * 512
        with open(f"/proc/{pid}/status") as lines:
            own = next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))
        return own + sum(shared.values())

    def drop(self) -> None:
        """The state; and its memory, which the allocator would keep."""
        self._held, self._state = nn.ParameterList(), TrainState(rng=False)
        gc.collect()
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)

    def drop_spare(self) -> None:
        """The pages of the buffer that the next snapshot would be written to: it stays, and is empty."""
        keeper = self.snapshots._buffers.keeper
        assert keeper is not None and keeper.kept, "take() first"
        slot = 1 - keeper.kept[0].slot
        if keeper.buffers[slot] >= 0:
            with mmap.mmap(keeper.buffers[slot], keeper.capacities[slot]) as mapped:
                mapped.madvise(mmap.MADV_REMOVE)

    def cpu(self) -> float:
        return time.process_time()
