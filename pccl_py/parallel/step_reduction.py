"""The reductions of one training step: posted while backward runs, valid together or repeated together.

Owned by one ElasticDataParallel. Hooks of backward post, which may be another thread than the one that
finishes, but never at the same time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..arguments import Scope
from ..errors import Cancelled, InternalError, PcclError
from ..shared_state import SharedState, SyncInfo
from ..work import CANCEL_S, OpInfo
from .agreement import parts_to_repeat

logger = logging.getLogger("pccl_py.parallel")

Tensors = list[torch.Tensor]


class Pending(Protocol):
    """What of a Work is needed here."""

    def wait(self, timeout: float | None = None) -> OpInfo: ...
    def cancel(self) -> None: ...


class Comm(Protocol):
    """What of a Communicator, or of an island's, elastic data parallelism needs."""

    @property
    def id(self) -> int: ...
    def update_topology(self) -> bool: ...
    def rejoin(self) -> None: ...
    def leave(self) -> None: ...
    def sync_shared_state(self, state: SharedState, *, tag: int | None, scope: Scope) -> SyncInfo: ...
    @property
    def all_reduce(self) -> Callable[..., Any]: ...


@dataclass
class Part:
    """One reduction. Inputs stay as they are until the step is over: they may be needed again."""

    inputs: Tensors
    outputs: Tensors
    tag: int
    work: Pending | None = None
    info: OpInfo | None = None


class StepReduction:
    """`post()` parts in any order, by an index that means the same on all peers; then `finish()`."""

    def __init__(self, comm: Comm, tag: int) -> None:
        self._comm = comm
        self._tag = tag
        self._parts: dict[int, Part] = {}

    def has(self, index: int) -> bool:
        """Whether it was posted already: in a backward pass of this step that did not reach its end."""
        return index in self._parts

    def post(self, index: int, inputs: Tensors, outputs: Tensors) -> None:
        part = Part(inputs, outputs, self._tag + index)
        part.work = self._start(part.inputs, part.outputs, part.tag)
        self._parts[index] = part

    def finish(self) -> OpInfo:
        """Waits until all parts are of the same contributors, and returns the info of the last commit.

        Raises what ended it, the same on all peers where it is a CollectiveError; nothing is in flight then.
        An interrupt leaves all parts as they are: it may be called again.
        """
        try:
            info = self._agree()
        except PcclError:
            self.drop()
            raise
        self._parts.clear()
        return info

    def drop(self) -> None:
        """Forgets the step. Nothing is read from or written to its tensors any more."""
        parts, self._parts = self._parts, {}
        works = [part.work for part in parts.values() if part.work is not None]
        for work in works:
            work.cancel()
        for work in works:
            with suppress(PcclError):
                work.wait(CANCEL_S)

    def _agree(self) -> OpInfo:
        parts = [self._parts[index] for index in sorted(self._parts)]
        last = None
        for part in parts:
            last = self._settle(part)
        while repeat := parts_to_repeat([_contributors(part) for part in parts]):
            last = self._repeat([parts[index] for index in repeat])
        if last is None:
            raise InternalError("a step without a reduction")
        return last

    def _settle(self, part: Part) -> OpInfo:
        while part.info is None:
            assert part.work is not None
            try:
                part.info = part.work.wait()
            except Cancelled as error:  # somebody was interrupted in it, and perhaps leaves
                logger.warning("%s; reducing again", error)
                part.work = self._start(part.inputs, part.outputs, part.tag)
        part.work = None
        return part.info

    def _repeat(self, parts: Sequence[Part]) -> OpInfo:
        inputs = [tensor for part in parts for tensor in part.inputs]
        outputs = [tensor for part in parts for tensor in part.outputs]
        whole = Part(inputs, outputs, parts[0].tag)
        whole.work = self._start(inputs, outputs, whole.tag)
        for part in parts:
            part.work, part.info = whole.work, None  # should it be interrupted, each waits for it
        info = self._settle(whole)
        for part in parts:
            part.work, part.info = None, info
        return info

    def _start(self, inputs: Tensors, outputs: Tensors, tag: int) -> Pending:
        work: Pending = self._comm.all_reduce(
            inputs, "sum", out=outputs, tag=tag, scope="run", on_loss="retry", async_op=True
        )
        return work


def reduce_once(comm: Comm, value: torch.Tensor, op: str, tag: int) -> torch.Tensor:
    """A small reduction by itself; repeated where another peer was interrupted in it."""
    while True:
        out = torch.empty_like(value)
        try:
            comm.all_reduce([value], op, out=[out], tag=tag, scope="run", on_loss="retry", async_op=False)
        except Cancelled as error:
            logger.warning("%s; reducing again", error)
            continue
        return out


def synchronize(comm: Comm, state: SharedState, tag: int) -> SyncInfo:
    """As sync_shared_state of the whole run, since shards of one model come from one island or none; repeated
    where another peer was interrupted in it."""
    while True:
        try:
            return comm.sync_shared_state(state, tag=tag, scope="run")
        except Cancelled as error:
            logger.warning("%s; synchronizing again", error)


def _contributors(part: Part) -> tuple[int, ...]:
    assert part.info is not None
    return part.info.contributors
