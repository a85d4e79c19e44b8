"""One average of the family on its way: a fragment's delta, and the counts that go with it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..error_feedback import Residual
from ..errors import Cancelled, CollectiveError, NonFiniteError, PcclError
from ..quantization import QuantConfig
from ..shared_state import SharedState, SyncInfo
from ..work import OpInfo

logger = logging.getLogger("pccl_py.optim")

SLOTS = 64  # a peer's own place in a vector that is summed: its id modulo this
TOTALS = 4  # steps, tokens, peers, going on


class Comm(Protocol):
    """What an optimizer needs of a Communicator, or of an Island."""

    def update_topology(self) -> bool: ...
    def rejoin(self) -> None: ...
    def sync_shared_state(self, state: SharedState, *, scope: Any) -> SyncInfo: ...
    @property
    def all_reduce(self) -> Callable[..., Any]: ...


@dataclass
class Own:
    """What this peer brings. weight: 0 where it has not trained a whole window from the shared parameters.

    steps, tokens    since the last reduction left
    trained          1.0 where there were steps
    goes_on          1.0 unless it is in finalize()
    speed            inner steps per second; 0 while unknown
    finite           False: its delta held NaN or infinity, and is zeros now
    extra            numbers whose weighted sum is wanted, as many on all peers
    """

    weight: float
    steps: int
    tokens: int
    goes_on: float
    speed: float = 0.0
    finite: bool = True
    extra: list[float] = field(default_factory=list)

    def counts(self, slot: int) -> Tensor:
        own = torch.zeros(TOTALS + 2 * SLOTS + len(self.extra), dtype=torch.float64)
        own[:TOTALS] = torch.tensor([self.steps, self.tokens, self.steps > 0, self.goes_on])
        own[TOTALS + slot] = 0.0 if self.finite else self.weight
        own[TOTALS + SLOTS + slot] = self.speed
        own[TOTALS + 2 * SLOTS :] = torch.tensor(self.extra, dtype=torch.float64) * self.weight
        return own


@dataclass(frozen=True)
class Landed:
    """A committed average: its operation, and the sums over all peers of what they counted.

    bad      weights of those whose delta was not finite, by slot
    speeds   inner steps per second, by slot
    extra    the weighted means of what Own.extra brought
    bytes_sent, bytes_received    tensor data of this peer, in all that belongs to it
    """

    info: OpInfo
    weight: float
    totals: list[float]
    bad: list[float]
    speeds: list[float]
    extra: list[float]
    bytes_sent: int
    bytes_received: int


@dataclass(frozen=True)
class How:
    """The same on all peers. together: one operation for both, which needs weights of 0 and 1 and values as
    they are; else two, which peers may leave between, so that their last tokens are not counted.

    overlaps   they run while the peer trains
    chunk      elements of the tensors that a delta is handed over as; None: one tensor
    """

    together: bool
    overlaps: bool
    quantization: QuantConfig | None = None
    chunk: int | None = None


class Reduction:
    """start(), then wait() until it returns. Where that raises a CollectiveError, on all peers alike, the
    delta is intact, and another wait() begins anew."""

    def __init__(
        self, comm: Comm, how: How, delta: Tensor, own: Own, slot: int, residual: Residual | None = None
    ) -> None:
        self._comm, self._how, self._own, self._slot, self._residual = comm, how, own, slot, residual
        self._deltas = [delta] if not how.chunk else list(torch.split(delta, how.chunk))
        self._counts = own.counts(slot)
        self._works: list[Any] = []
        self._done: list[OpInfo | None] = [None, None]

    @property
    def committed(self) -> bool:
        """Whether the average is there, if not all that belongs to it."""
        return self._done[0] is not None

    def start(self) -> None:
        if self._how.overlaps and not self._works:
            # Whoever drops a Work cancels it on all peers: so both are kept, whatever becomes of the second.
            self._works = [None, None]
            for index in range(2):
                if self._done[index] is None:
                    self._works[index] = self._post(index, async_op=True)

    def wait(self) -> Landed:
        if self._how.together:
            return self._wait_together()
        while None in self._done:
            try:
                self._wait_apart()
            except Cancelled as error:
                logger.warning("%s; reducing again", error)
        return self._landed(self._counts)

    def _wait_together(self) -> Landed:
        # Divided by the weight, so that the weighted average times the sum of weights is a plain sum.
        self._counts = self._own.counts(self._slot)
        weight = self._own.weight
        counts = self._counts / weight if weight else torch.zeros_like(self._counts)
        tensors = [*self._deltas, counts]
        while True:  # another peer was interrupted in it and may leave; we lose no window
            try:
                info = self._comm.all_reduce(tensors, "avg", scope="run", weight=weight, on_loss="retry")
                break
            except Cancelled as error:
                logger.warning("%s; reducing again", error)
        self._done[0] = info
        return self._landed(counts * (info.weight or 0.0))

    def _wait_apart(self) -> None:
        """The second one is waited for even where the first one failed: whether it counts is known then."""
        self.start()
        failure: PcclError | None = None
        for index in range(2):
            if self._done[index] is not None:
                continue
            try:
                work = self._works[index] if self._works else None
                self._done[index] = work.wait() if work else self._post(index, async_op=False)
            except CollectiveError as error:
                if failure is None or isinstance(error, NonFiniteError):
                    failure = error
        self._works = []
        if failure is not None:
            raise failure

    def _post(self, index: int, *, async_op: bool) -> Any:
        options: dict[str, Any] = {"async_op": True} if async_op else {}
        if index:
            self._counts.copy_(self._own.counts(self._slot))
            return self._comm.all_reduce(self._counts, "sum", scope="run", on_loss="retry", **options)
        if self._how.quantization is not None:
            options |= {"quantization": self._how.quantization}
            if self._residual is not None:
                options |= {"error_feedback": self._residual}
        weight = self._own.weight
        return self._comm.all_reduce(
            self._deltas, "avg", scope="run", weight=weight, on_loss="retry", **options
        )

    def _landed(self, counts: Tensor) -> Landed:
        info = self._done[0]
        assert info is not None
        sums, total = [float(value) for value in counts], info.weight or 0.0
        bad, rest = sums[TOTALS : TOTALS + SLOTS], sums[TOTALS + SLOTS :]
        extra = [value / total if total else 0.0 for value in rest[SLOTS:]]
        sent = sum(done.bytes_sent for done in self._done if done)
        received = sum(done.bytes_received for done in self._done if done)
        return Landed(info, total, sums[:TOTALS], bad, rest[:SLOTS], extra, sent, received)
