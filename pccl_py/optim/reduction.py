"""One average of the family on its way: a fragment's delta, and the counts that go with it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from ..error_feedback import Residual
from ..errors import Cancelled, CollectiveError, NonFiniteError
from ..quantization import QuantConfig
from ..shared_state import SharedState, SyncInfo
from ..work import OpInfo, committed_before

logger = logging.getLogger("pccl_py.optim")

SLOTS = 64  # a peer's own place in a vector that is summed: its id modulo this
TOTALS = 7  # steps, tokens, peers that trained, going on, either, weight, weight of what is not finite
MARKS_EACH = 8  # slots that one float64 marks: three bits each for bad and leaving, up to 7 peers of a slot
MARKS = -(-SLOTS // MARKS_EACH)
COUNTS, DELTA = 0, 1


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
    leaving          this is its last delta, and what quantization held back is to be had
    finite           False: its delta held NaN or infinity, and is zeros now
    extra            numbers whose weighted sum is wanted, as many on all peers
    samples          float32, as many on all peers: what it has used of a sampler; see samples.py
    """

    weight: float
    steps: int
    tokens: int
    goes_on: float
    speed: float = 0.0
    finite: bool = True
    leaving: bool = False
    extra: list[float] = field(default_factory=list)
    samples: Tensor | None = None

    def counts(self, slot: int) -> list[Tensor]:
        """float64 [TOTALS + MARKS + extra], every slot's speed, float32, and samples, if any: summed over the
        peers."""
        numbers = torch.zeros(TOTALS + MARKS + len(self.extra), dtype=torch.float64)
        bad = self.weight if not self.finite else 0.0
        either = self.steps > 0 or self.goes_on > 0
        totals = [self.steps, self.tokens, self.steps > 0, self.goes_on, either, self.weight, bad]
        numbers[:TOTALS] = torch.tensor(totals)
        marks = (bad > 0) + 8 * self.leaving
        numbers[TOTALS + slot // MARKS_EACH] = marks * 64.0 ** (slot % MARKS_EACH)
        numbers[TOTALS + MARKS :] = torch.tensor(self.extra, dtype=torch.float64) * self.weight
        speeds = torch.zeros(SLOTS)
        speeds[slot] = self.speed
        return [numbers, speeds] if self.samples is None else [numbers, speeds, self.samples.clone()]


def marked(numbers: list[float]) -> tuple[set[int], set[int]]:
    """The slots that the MARKS numbers call bad, and leaving."""
    digits = [round(number) >> 6 * place & 63 for number in numbers for place in range(MARKS_EACH)]
    bad = {slot for slot, digit in enumerate(digits) if digit & 7}
    return bad, {slot for slot, digit in enumerate(digits) if digit >> 3}


@dataclass(frozen=True)
class Landed:
    """A committed average: its operation, and the sums over all peers of what they counted.

    totals   steps, tokens, peers that trained, peers that go on, peers that did or do
    bad      slots of those whose delta was not finite; bad_weight: the sum of their weights
    leaving  slots of those that leave after it
    speeds   inner steps per second, by slot
    extra    the weighted means of what Own.extra brought
    samples  the sum of Own.samples
    bytes_sent, bytes_received    tensor data of this peer, in all that belongs to it
    """

    info: OpInfo
    weight: float
    totals: list[float]
    bad: set[int]
    leaving: set[int]
    bad_weight: float
    speeds: list[float]
    extra: list[float]
    bytes_sent: int
    bytes_received: int
    samples: Tensor | None = None


@dataclass(frozen=True)
class How:
    """The same on all peers. together: one operation for both, which needs weights of 0 and 1 and values as
    they are; else two: the counts, and the delta where somebody has a weight. Who leaves between is not
    counted.

    overlaps   they run while the peer trains
    chunk      elements of the tensors that a delta is handed over as; None: one tensor
    """

    together: bool
    overlaps: bool
    quantization: QuantConfig | None = None
    chunk: int | None = None


class Reduction:
    """start(), then wait() until it returns. Where that raises a CollectiveError, on all peers alike, another
    wait() begins anew.

    remake   fills the delta with what it was; on all peers or on none, where nothing overlaps. With it no
             copy is kept of the delta, and it is not intact when wait() raises.
    """

    def __init__(
        self,
        comm: Comm,
        how: How,
        delta: Tensor,
        own: Own,
        slot: int,
        residual: Residual | None = None,
        remake: Callable[[], None] | None = None,
    ) -> None:
        self._comm, self._how, self._own, self._slot, self._residual = comm, how, own, slot, residual
        self._deltas = [delta] if not how.chunk else list(torch.split(delta, how.chunk))
        self._counts = own.counts(slot)
        self._joint: list[Tensor] = []  # the counts, where they travel with the delta
        self._works: list[Any] = []
        self._done: list[OpInfo | None] = [None, None]
        self._bytes = [0, 0]
        self._remake = remake
        self._spoilt = False  # the delta, by an operation that did not commit

    @property
    def begun(self) -> bool:
        """Whether a part of it is committed."""
        return self._done != [None, None]

    @property
    def posted(self) -> bool:
        """Whether a part of it is under way, or committed."""
        return self.begun or any(self._works)

    @property
    def committed(self) -> bool:
        """Whether the average is there, if not all that belongs to it."""
        return self._done[DELTA] is not None

    def start(self) -> None:
        if self._how.overlaps and not self._works:
            # Whoever drops a Work cancels it on all peers: so both are kept, whatever becomes of the second.
            self._works = [None, None]
            for index in (COUNTS, DELTA):
                if self._done[index] is None:
                    self._works[index] = self._post(index, async_op=True)

    def wait(self) -> Landed:
        if self._how.together:
            return self._wait_together()
        while True:
            try:
                self._wait_apart()
                return self._landed(self._counts)
            except Cancelled as error:
                logger.warning("%s; reducing again", error)

    def _wait_together(self) -> Landed:
        while not self.committed:  # another peer was interrupted in it and may leave; we lose no window
            try:
                self._joint = [torch.empty_like(count) for count in self._counts]
                self._settle(DELTA, lambda: self._reduce_delta(self._joint))
            except Cancelled as error:
                logger.warning("%s; reducing again", error)
        info = self._done[DELTA]
        assert info is not None
        return self._landed([count * (info.weight or 0.0) for count in self._joint])

    def _reduce_delta(self, counts: Sequence[Tensor] = (), **options: Any) -> Any:
        """Counts travel divided by the weight: the weighted average times the sum of weights is a plain
        sum."""
        weight = self._own.weight

        def fill() -> None:
            if self._remake is not None and self._spoilt:
                self._remake()
            for count, own in zip(counts, self._own.counts(self._slot), strict=False):
                count.copy_(own / weight if weight else torch.zeros_like(own))
            self._spoilt = True

        fill()
        if self._remake is not None:
            options |= {"remake": fill}
        return self._comm.all_reduce(
            [*self._deltas, *counts], "avg", scope="run", weight=weight, on_loss="retry", **options
        )

    def _wait_apart(self) -> None:
        """Where both are under way, the second one is waited for even where the first one failed: whether it
        counts is known then. Else the delta leaves only if it has a weight anywhere."""
        self.start()
        failure: CollectiveError | None = None
        for index in (COUNTS, DELTA):
            if self._done[index] is not None or (index == DELTA and not self._works and self._weightless):
                continue
            try:
                work = self._works[index] if self._works else None
                self._settle(index, work.wait if work else partial(self._post, index, async_op=False))
            except CollectiveError as error:
                if not self._works:
                    raise
                if failure is None or isinstance(error, NonFiniteError):
                    failure = error
        self._works = []
        if failure is not None:
            raise failure
        counts, delta = self._done
        if counts and delta and set(counts.contributors) - set(delta.contributors):
            self._done[COUNTS] = None
            self._settle(COUNTS, partial(self._post, COUNTS, async_op=False))

    def _settle(self, index: int, call: Callable[[], OpInfo]) -> None:
        """Notes what has committed, also where Ctrl-C came just too late: the others do not repeat that."""
        try:
            self._note(index, call())
        except BaseException as error:
            if (info := committed_before(error)) is not None:
                self._note(index, info)
            raise

    @property
    def _weightless(self) -> bool:
        return self._done[COUNTS] is not None and not float(self._counts[0][5])

    def _note(self, index: int, info: OpInfo) -> None:
        self._done[index] = info
        self._bytes = [self._bytes[0] + info.bytes_sent, self._bytes[1] + info.bytes_received]

    def _post(self, index: int, *, async_op: bool) -> Any:
        options: dict[str, Any] = {"async_op": True} if async_op else {}
        if index == COUNTS:
            for count, own in zip(self._counts, self._own.counts(self._slot), strict=True):
                count.copy_(own)
            return self._comm.all_reduce(self._counts, "sum", scope="run", on_loss="retry", **options)
        if self._how.quantization is not None:
            options |= {"quantization": self._how.quantization}
            if self._residual is not None:
                options |= {"error_feedback": self._residual}
        return self._reduce_delta(**options)

    def _landed(self, counts: list[Tensor]) -> Landed:
        """Nobody had a weight: the counts alone."""
        info, skipped = self._done[DELTA], self._done[COUNTS]
        sums, speeds = counts[0].tolist(), counts[1].tolist()
        weight = (info.weight or 0.0) if info else 0.0
        total = sums[5]
        extra = [value / total if total else 0.0 for value in sums[TOTALS + MARKS :]]
        found = info or skipped
        assert found is not None
        bad, leaving = marked(sums[TOTALS : TOTALS + MARKS])
        samples = counts[2] if len(counts) > 2 else None
        sent, received = self._bytes
        return Landed(found, weight, sums[:5], bad, leaving, sums[6], speeds, extra, sent, received, samples)
