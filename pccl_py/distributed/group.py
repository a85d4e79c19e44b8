"""Ranks that reduce together: torch's operations on the operations of one Communicator.

Ranks do not move under the caller's feet. `ids` is the membership that the caller was told; it changes only
with a failed operation, which fails on every survivor alike, with a committed one that says who took part, or
at `update_topology()`. With `on_loss="raise"` an operation is for exactly these peers: if somebody has died,
whether before or in it, it raises on all survivors and costs nobody a wrong divisor.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from ..errors import OperationTimeout, PcclError, PeerLost, UsageError
from ..tensors import describe
from ..work import Work
from .errors import translated
from .member import (
    ALL_GATHER,
    ALL_REDUCE,
    ALL_TO_ALL,
    BARRIER,
    BROADCAST,
    GATHER,
    REDUCE_SCATTER,
    SCATTER,
    Member,
)
from .pending import Pending
from .reduction import Reduction, number_of_op, reduction_of
from .staged import Back, joined, lend, plain_code

OnLoss = Literal["retry", "raise"]
Tensors = Sequence[torch.Tensor]


class Group:
    """Posts from any thread, in the order of the calls. `name`: for messages; `timeout_s`: of operations."""

    def __init__(
        self,
        member: Member | None,
        name: str,
        *,
        timeout_s: float | None = None,
        on_loss: OnLoss = "raise",
        place: tuple[int, int] = (0, 1),
    ) -> None:
        """`member` None: nobody is in it until `become()`; `place`: rank and size that it says until then."""
        self._member = member
        self.name = name
        self.timeout_s = timeout_s
        self.on_loss = on_loss
        self.changes = 0  # how often `ids` has changed
        self.heard: list[Callable[[], None]] = []  # called after each change
        self._lock = threading.RLock()
        self._in_flight: deque[Pending] = deque()
        self._place = place
        self.id = 0 if member is None else member.id
        self.ids: tuple[int, ...] = () if member is None else member.ids()
        self._formed = len(self.ids)

    # ---- who -----------------------------------------------------------------------------------------------

    @property
    def member(self) -> Member:
        if self._member is None:
            raise UsageError(f"group '{self.name}' has no peers until reconfigure() gives it some")
        return self._member

    @property
    def rank(self) -> int:
        return self.ids.index(self.id) if self.ids else self._place[0]

    @property
    def size(self) -> int:
        return len(self.ids) or self._place[1]

    @property
    def is_live(self) -> bool:
        """Whether it has peers, or could: not when it was left, evicted, or lost its master."""
        return self._member is not None and self._member.is_member

    @property
    def is_whole(self) -> bool:
        """Whether all are there of those that it was formed of."""
        return len(self.ids) >= self._formed

    def become(self, member: Member) -> None:
        """From now on its peers are those of `member`. What is in flight with the old ones ends here, as when
        this peer leaves."""
        with self._lock:
            old, self._member = self._member, member
            self.id = member.id
            ids = member.ids()
            self._formed = len(ids)
        if old is not None:
            old.leave()
        self.ids = ()
        self._take(ids)

    def update_topology(self, timeout: float | None = None) -> bool:
        """A step boundary, at which all ranks call it: newcomers come in, and get the last ranks. Whether any
        came, and all ranks hear the same. A death at this moment shows in the next operation."""
        self.settle()
        passed = self.member.boundaries
        try:
            self.member.update_topology(timeout)
            return self.member.boundaries != passed and self.agree()
        except PcclError as error:
            raise self.explained(error) from error

    def agree(self) -> bool:
        """Takes as members those who take part in one barrier, newcomers too: what peers see of a view may be
        different, who is in a result is not. Whether there are new ones."""
        barrier = self.member.whole(BARRIER, [], None, peers=0, on_loss="retry", timeout=self.timeout_s)
        here = set(barrier.wait().contributors)
        new = sorted(here - set(self.ids))
        self._take(tuple(peer for peer in self.ids if peer in here) + tuple(new))
        return bool(new)

    def refresh(self) -> str:
        """Takes over the view as it is; what has changed, in words."""
        before = self.ids
        try:
            now = self.member.ids()
        except PcclError:  # out of the run: the operation's own error says so
            return ""
        now = tuple(peer for peer in before if peer in now)  # newcomers count from update_topology() on
        if now == before or self.id not in now:
            return ""
        self._take(now)
        lost = [f"rank {rank} (peer {peer})" for rank, peer in enumerate(before) if peer not in now]
        return f"{' and '.join(lost)} left"

    def _take(self, ids: tuple[int, ...]) -> None:
        if ids == self.ids:
            return
        self.ids = ids
        self.changes += 1
        for call in list(self.heard):
            call()

    def committed(self, contributors: Sequence[int]) -> None:
        """With on_loss="retry", a result says who is left: to all ranks the same."""
        if self.on_loss == "retry" and len(contributors) != len(self.ids):
            here = set(contributors)
            self._take(tuple(peer for peer in self.ids if peer in here))

    def explained(self, error: PcclError) -> Exception:
        """For torch: who is gone, and what to do."""
        if isinstance(error, OperationTimeout):
            text = self._with_ranks(str(error))
            return translated(error, f"in group '{self.name}' a timeout ended the wait: {text}")
        if not isinstance(error, PeerLost):
            return translated(error, self._with_ranks(str(error)))
        who = self.refresh() or "the membership changed"
        text = (
            f"{who}; group '{self.name}' goes on with {self.size} ranks, this one is rank {self.rank} now: "
        )
        return translated(error, f"{text}repeat the step. ({error})")

    def _with_ranks(self, text: str) -> str:
        """What the core says of peers, for those who know ranks."""

        def named(match: re.Match[str]) -> str:
            peer = int(match[1])
            return f"rank {self.ids.index(peer)} ({match[0]})" if peer in self.ids else match[0]

        return re.sub(r"\bpeer (\d+)", named, text)

    def settle(self) -> None:
        """Waits for what is in flight, whatever comes of it."""
        while self._in_flight:
            pending = self._in_flight.popleft()
            _see_end_of(pending)

    def leave(self) -> None:
        if self._member is not None:
            self._member.leave()

    # ---- posting -------------------------------------------------------------------------------------------

    def _keep(self, pending: Pending) -> Pending:
        """Who drops a work does not cancel it."""
        while self._in_flight and self._in_flight[0].done():
            self._in_flight.popleft()
        self._in_flight.append(pending)
        return pending

    def _peers(self) -> int:
        return len(self.ids) if self.on_loss == "raise" else 0

    def _whole(
        self, call: int, tensors: Tensors, out: Tensors | None, timeout: float | None, **options: Any
    ) -> Work:
        return self.member.whole(
            call,
            tensors,
            out,
            peers=self._peers(),
            on_loss=self.on_loss,
            timeout=self.timeout_s if timeout is None else timeout,
            **options,
        )

    def _blocks(
        self, call: int, tensors: Tensors | None, out: Tensors | None, timeout: float | None, **options: Any
    ) -> Work:
        limit = self.timeout_s if timeout is None else timeout
        return self.member.blocks(call, tensors, out, peers=len(self.ids), timeout=limit, **options)

    def _root(self, root: int) -> int:
        if not 0 <= root < len(self.ids):
            raise UsageError(f"rank {root} of group '{self.name}', which has {len(self.ids)} ranks")
        return self.ids[root]

    # ---- whole tensors -------------------------------------------------------------------------------------

    def all_reduce(self, tensors: Tensors, op: Any, timeout: float | None = None) -> Pending:
        """In place, the list as one operation."""
        if len(tensors) == 1 and (number := number_of_op(op)) and (code := plain_code(tensors[0])):
            limit = self.timeout_s if timeout is None else timeout
            with self._lock:
                work = self.member.reduce_one(
                    tensors[0], code, number, peers=self._peers(), on_loss=self.on_loss, timeout=limit
                )
                return self._keep(Pending(self, work, tensors))
        with self._lock:
            reduction = reduction_of(op, _one_dtype(tensors, "all_reduce"))
            if reduction.name is None:
                return self._folded(tensors, reduction, timeout)
            lent, back = _lend_all(tensors, "all_reduce", reduced=True)
            if reduction.factor is not None:
                scaled = [tensor * reduction.factor for tensor in lent]
                work = self._whole(ALL_REDUCE, scaled, lent, timeout, op=reduction.name)
            else:
                work = self._whole(ALL_REDUCE, lent, None, timeout, op=reduction.name)
            return self._keep(Pending(self, work, tensors, back))

    def _folded(self, tensors: Tensors, reduction: Reduction, timeout: float | None) -> Pending:
        inputs, _ = _lend_all(tensors, "all_reduce", reduced=True, written=False)
        rows = [torch.empty((self.size, *i.shape), dtype=i.dtype, device=i.device) for i in inputs]
        work = self._blocks(ALL_GATHER, inputs, rows, timeout)

        def fold() -> None:
            for tensor, row in zip(tensors, rows, strict=True):
                tensor.detach().copy_(reduction.folded(row.view(tensor.dtype)))

        return self._keep(Pending(self, work, tensors, [fold]))

    def reduce(self, tensors: Tensors, root: int, op: Any, timeout: float | None = None) -> Pending:
        """In place at `root`; the others' tensors stay as they are."""
        with self._lock:
            self._root(root)
            if self.rank == root:
                return self.all_reduce(tensors, op, timeout)
            copies = [tensor.detach().clone() for tensor in tensors]
            pending = self.all_reduce(copies, op, timeout)
            pending.outputs = list(tensors)
            return pending

    def broadcast(self, tensors: Tensors, root: int, timeout: float | None = None) -> Pending:
        with self._lock:
            peer = self._root(root)
            lent, back = _lend_all(tensors, "broadcast", reduced=False)
            work = self._whole(BROADCAST, lent, None, timeout, root=peer)
            return self._keep(Pending(self, work, tensors, back if self.id != peer else ()))

    def barrier(self, timeout: float | None = None) -> Pending:
        with self._lock:
            return self._keep(Pending(self, self._whole(BARRIER, [], None, timeout), []))

    # ---- in blocks, one per rank ---------------------------------------------------------------------------

    def all_gather(self, outputs: Tensors, inputs: Tensors, timeout: float | None = None) -> Pending:
        """Output i: the inputs i of all ranks, one after the other."""
        with self._lock:
            return self._in_blocks(ALL_GATHER, outputs, inputs, timeout)

    def all_gather_lists(
        self, outputs: Sequence[Tensors], inputs: Tensors, timeout: float | None = None
    ) -> Pending:
        """outputs[i][r]: input i of rank r. The ranks' inputs are equally large."""
        with self._lock:
            for each, own in zip(outputs, inputs, strict=True):
                self._check_list(each, own, "all_gather")
            spread = [_spread(each) for each in outputs]
            flat, pour = [f for f, _ in spread], [p for _, p in spread if p is not None]
            pending = self._in_blocks(ALL_GATHER, flat, inputs, timeout, then=pour)
            pending.outputs = [tensor for each in outputs for tensor in each]
            return pending

    def reduce_scatter(
        self, outputs: Tensors, inputs: Tensors, op: Any, timeout: float | None = None
    ) -> Pending:
        """Output i: block `rank` of the reduced inputs i."""
        with self._lock:
            reduction = reduction_of(op, _one_dtype(inputs, "reduce_scatter"))
            if reduction.name is None:
                return self._folded_blocks(outputs, inputs, reduction, timeout)
            if reduction.factor is not None:
                inputs = [tensor * reduction.factor for tensor in inputs]
            return self._in_blocks(REDUCE_SCATTER, outputs, inputs, timeout, reduced=True, op=reduction.name)

    def _folded_blocks(
        self, outputs: Tensors, inputs: Tensors, reduction: Reduction, timeout: float | None
    ) -> Pending:
        rows = [torch.empty(t.numel(), dtype=t.dtype, device=t.device) for t in inputs]

        def fold() -> None:
            for output, row in zip(outputs, rows, strict=True):
                output.detach().copy_(reduction.folded(row.view(self.size, *output.shape)))

        pending = self._in_blocks(ALL_TO_ALL, rows, inputs, timeout, then=[fold])
        pending.outputs = list(outputs)
        return pending

    def gather(
        self, outputs: Tensors | None, own: torch.Tensor, root: int, timeout: float | None = None
    ) -> Pending:
        """outputs[r], at `root` alone: the tensor of rank r."""
        with self._lock:
            peer = self._root(root)
            if (outputs is not None) != (peer == self.id):
                raise UsageError("gather: pass a list of outputs at the destination, and none elsewhere")
            if outputs is None:
                return self._in_blocks(GATHER, None, [own], timeout, root=peer)
            self._check_list(outputs, own, "gather")
            flat, pour = _spread(outputs)
            pending = self._in_blocks(
                GATHER, [flat], [own], timeout, then=[] if pour is None else [pour], root=peer
            )
            pending.outputs = list(outputs)
            return pending

    def scatter(
        self, output: torch.Tensor, inputs: Tensors | None, root: int, timeout: float | None = None
    ) -> Pending:
        with self._lock:
            peer = self._root(root)
            if (inputs is not None) != (peer == self.id):
                raise UsageError("scatter: pass a list of inputs at the source, and none elsewhere")
            if inputs is None:
                return self._in_blocks(SCATTER, [output], None, timeout, root=peer)
            self._check_list(inputs, output, "scatter")
            return self._in_blocks(SCATTER, [output], [_packed(inputs)], timeout, root=peer)

    def all_to_all(self, output: torch.Tensor, own: torch.Tensor, timeout: float | None = None) -> Pending:
        """Equal blocks."""
        with self._lock:
            return self._in_blocks(ALL_TO_ALL, [output], [own], timeout)

    def all_to_all_uneven(self, outputs: Tensors, inputs: Tensors, timeout: float | None = None) -> Pending:
        """inputs[r] goes to rank r, outputs[r] comes from rank r, of any sizes. Every rank calls it so: the
        largest block of all is agreed on first, and the others are filled up to it."""
        with self._lock:
            for side in (inputs, outputs):
                if len(side) != self.size:
                    raise UsageError(f"all_to_all: {len(side)} blocks for {self.size} ranks")
            dtype = _one_dtype([*inputs, *outputs], "all_to_all")
            most = torch.tensor([max(t.numel() for t in (*inputs, *outputs))])
            self.all_reduce([most], torch.distributed.ReduceOp.MAX, timeout).wait()
            block = int(most)
            packed = torch.zeros((self.size, block), dtype=dtype, device=inputs[0].device)
            landed = torch.empty_like(packed)
            for row, tensor in zip(packed, inputs, strict=True):
                row[: tensor.numel()].copy_(tensor.detach().reshape(-1))

            def pour() -> None:
                for row, tensor in zip(landed, outputs, strict=True):
                    tensor.detach().copy_(row[: tensor.numel()].view(tensor.shape))

            pending = self._in_blocks(ALL_TO_ALL, [landed], [packed], timeout, then=[pour])
            pending.outputs = list(outputs)
            return pending

    def _in_blocks(
        self,
        call: int,
        outputs: Tensors | None,
        inputs: Tensors | None,
        timeout: float | None,
        *,
        reduced: bool = False,
        then: Sequence[Callable[[], None]] = (),
        **options: Any,
    ) -> Pending:
        sources = targets = None
        finish: list[Callable[[], None]] = []
        if inputs is not None:
            sources, _ = _lend_all(inputs, "the input", reduced=reduced, written=False)
        if outputs is not None:
            targets, finish = _lend_all(outputs, "the output", reduced=reduced)
        if sources is not None and targets is not None:
            sources = [_apart(source, targets) for source in sources]
        work = self._blocks(call, sources, targets, timeout, **options)
        return self._keep(Pending(self, work, outputs or [], [*finish, *then]))

    def _check_list(self, tensors: Tensors, own: torch.Tensor, what: str) -> None:
        if len(tensors) != self.size:
            raise UsageError(f"{what}: {len(tensors)} tensors in the list for {self.size} ranks")
        for rank, tensor in enumerate(tensors):
            if tensor.numel() != own.numel() or tensor.dtype != own.dtype:
                raise UsageError(
                    f"{what}: tensor {rank} of the list is {describe(tensor)}, the own one {describe(own)}: "
                    "they must agree"
                )


def _see_end_of(pending: Pending) -> None:
    try:
        pending.wait()
    except Exception:  # its own waiter hears it
        return


def _one_dtype(tensors: Tensors, what: str) -> torch.dtype:
    dtypes = {tensor.dtype for tensor in tensors}
    if len(dtypes) != 1:
        raise UsageError(f"{what}: tensors of one dtype, please; these are {sorted(map(str, dtypes))}")
    return dtypes.pop()


def _lend_all(
    tensors: Tensors, what: str, *, reduced: bool, written: bool = True
) -> tuple[list[torch.Tensor], list[Back]]:
    pairs = [lend(tensor, what, reduced=reduced, written=written) for tensor in tensors]
    return [tensor for tensor, _ in pairs], [back for _, back in pairs if back is not None]


def _apart(source: torch.Tensor, targets: list[torch.Tensor]) -> torch.Tensor:
    """A copy where the input lies in an output, as torch allows."""
    begin, end = source.data_ptr(), source.data_ptr() + source.numel() * source.element_size()
    for target in targets:
        first = target.data_ptr()
        if begin < first + target.numel() * target.element_size() and first < end:
            return source.clone()
    return source


def _spread(tensors: Tensors) -> tuple[torch.Tensor, Back | None]:
    """(flat memory for all of them, what copies it to them): without a copy where they lie in a row."""
    flat = joined(list(tensors))
    if flat is not None:
        return flat, None
    first, count = tensors[0], sum(t.numel() for t in tensors)
    flat = torch.empty(count, dtype=first.dtype, device=first.device)

    def pour() -> None:
        offset = 0
        for tensor in tensors:
            tensor.detach().copy_(flat[offset : offset + tensor.numel()].view(tensor.shape))
            offset += tensor.numel()

    return flat, pour


def _packed(tensors: Tensors) -> torch.Tensor:
    flat = joined(list(tensors))
    if flat is not None:
        return flat
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
