"""A world of peers in one process, whose communicators average in the order of ranks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from pccl_py import OpInfo, SharedState, SyncInfo


class FakeWorld:
    """`FakeWorld(3).comms` are three communicators. Sums are taken rank by rank in the tensors' dtype."""

    def __init__(self, size: int) -> None:
        self._barrier = threading.Barrier(size, timeout=20)
        self._posted: dict[int, Any] = {}
        self.comms = [FakeComm(self, rank) for rank in range(size)]

    def meet(self, rank: int, value: Any) -> list[Any]:
        """What all ranks brought, in order."""
        self._posted[rank] = value
        self._barrier.wait()
        values = [self._posted[r] for r in sorted(self._posted)]
        self._barrier.wait()
        return values


class FakeWork:
    """Runs when it is waited for, which all ranks do in the same order."""

    def __init__(self, run: Callable[[], OpInfo]) -> None:
        self._run = run
        self.info: OpInfo | None = None

    def wait(self) -> OpInfo:
        self.info = self.info or self._run()
        return self.info


class FakeComm:
    """`failures`: raised by the next calls of all_reduce, before anything else happens."""

    def __init__(self, world: FakeWorld, rank: int) -> None:
        self._world = world
        self._rank = rank
        self.failures: list[Exception] = []
        self.calls: list[str] = []
        self._works: list[FakeWork] = []
        self.waiting = 0

    def update_topology(self) -> bool:
        self.calls.append("update_topology")
        self.waiting = 0
        assert all(work.info for work in self._works), "operations are in flight"
        return False

    def rejoin(self) -> None:
        self.calls.append("rejoin")

    @property
    def id(self) -> int:
        return self._rank

    def all_reduce(
        self,
        tensors: Any,
        op: Any,
        *,
        scope: Any,
        on_loss: Any,
        weight: float = 1.0,
        async_op: bool = False,
        remake: Callable[[], object] | None = None,
        **options: Any,
    ) -> Any:
        assert op in ("avg", "sum") and (scope, on_loss) == ("run", "retry")
        assert not options, f"nothing is quantized here: {options}"
        self.calls.append("all_reduce")
        if self.failures:
            raise self.failures.pop(0)
        given = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        if remake is not None:  # an attempt is lost, and what it left is no input
            assert not async_op
            for tensor in given:
                tensor.fill_(float("nan"))
            remake()
        work = FakeWork(partial(self._reduce, given, op, weight))
        self._works.append(work)
        return work if async_op else work.wait()

    def _reduce(self, tensors: list[torch.Tensor], op: str, weight: float) -> OpInfo:
        posted = self._world.meet(self._rank, ([t.clone() for t in tensors], weight))
        total = sum(w for _, w in posted)
        for index, tensor in enumerate(tensors):
            tensor.zero_()
            for contribution, w in posted:
                tensor += contribution[index] * w
            if total and op == "avg":
                tensor /= total
        return OpInfo(tuple(range(len(posted))), 0, 0, 0.0, 1, self.waiting, total)

    def sync_shared_state(self, state: SharedState, *, scope: str) -> SyncInfo:
        self.calls.append("sync_shared_state")
        mine = {name: tensor.clone() for name, tensor in state.tensors.items()}
        posted = self._world.meet(self._rank, (mine, state.revision))
        donor = max(range(len(posted)), key=lambda rank: (posted[rank][1], -rank))
        elected, revision = posted[donor]
        differs = any(not torch.equal(mine[name], elected[name]) for name in mine)
        for name, tensor in state.tensors.items():
            tensor.copy_(elected[name])
        state.revision = revision
        everybody = tuple(range(len(posted)))
        return SyncInfo(0, 0, revision, (donor,) if differs else (), everybody, 0.0, 1, 0)
