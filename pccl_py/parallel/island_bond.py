"""What holds the ranks of one island together: a call that all islands make has one outcome on all of them.

Owned by an Island, and touched by its training thread, except where said otherwise.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import NoReturn, TypeVar

import torch.distributed as dist
from torch import Tensor

from ..communicator import Communicator
from ..errors import (
    CollectiveError,
    Evicted,
    IslandLost,
    MasterLost,
    MismatchError,
    NoQuorumError,
    OutcomeUnknown,
    PcclError,
    RefusedError,
    UsageError,
)
from .island_state import readable
from .siblings import Siblings, Watch, abort

logger = logging.getLogger("pccl_py.parallel")
T = TypeVar("T")

OUT_OF_RUN = (Evicted, OutcomeUnknown, MasterLost, NoQuorumError)
ENDS = (*OUT_OF_RUN, CollectiveError)  # of an operation, which siblings have to hear of
REJOINS_MAX = 5  # in one go: then something is wrong that joining again does not mend
END_S = 15.0  # within which the master has told all ranks of an island that it is gone
# How a rank's call ended, as its siblings hear it; the worst one counts for all.
DONE, FAILED, OUT, REFUSED = range(4)
# What a torch collective says whose other side is gone, or late.
_INNER = re.compile(r"gloo|nccl|connection|reset by peer|timed? ?out|process ?group|peerlost|\bpeer \d", re.I)


def join_together(siblings: Siblings, join: Callable[[], T], undo: Callable[[T], object]) -> T:
    """What `join` returns once it has come to an end on all ranks of the island. It is repeated where the
    island is turned away, or evicted before all of its ranks have heard that they are in: a rank was silent.

    undo: of a rank that was in, when another one was not. Raises the last refusal, IslandLost where a sibling
    is gone, and at once what else `join` raises.
    """
    refused: PcclError = Evicted("a sibling could not come in")
    for attempt in range(REJOINS_MAX):
        found: list[T] = []
        try:
            found.append(join())
        except (*OUT_OF_RUN, RefusedError) as error:
            refused = error
        try:
            told = siblings.tell(DONE if found else OUT)
        except IslandLost as error:
            raise IslandLost(f"{error}; {readable(str(refused))}") if not found else error from refused
        if max(told) == DONE:
            return found[0]
        logger.warning("%s; joining again", refused)
        for each in found:
            undo(each)
        time.sleep(0.1 * attempt)
    raise refused


class Bond:
    """`groups`: what the model is sharded over; aborted where the backend can when a sibling is dead."""

    def __init__(self, comm: Communicator, siblings: Siblings, groups: list[dist.ProcessGroup]) -> None:
        self.comm = comm
        self.is_out = False  # of the run: rejoin() first
        self._siblings = siblings
        self._groups = groups
        self._watch: Watch | None = None
        self._check_place()
        self._begin_watch()

    def jointly(self, call: Callable[[], T]) -> T:
        """A call that all islands make, with one outcome on all ranks of this one: the worst that a rank has
        seen. So ranks never part, and none waits in a collective that another one does not come to."""
        found: list[T] = []
        failed: PcclError | None = None
        try:
            found.append(call())
        except ENDS as error:
            failed = error
        own = self._verdict(failed)
        told = self.tell(own)
        worst = max(told)
        if worst == DONE:
            return found[0]
        self.is_out |= worst >= OUT
        if failed is not None and own == worst:
            raise failed
        self._raise_for(told.index(worst), worst)

    def tell(self, number: int) -> list[int]:
        """The numbers of all ranks of the island. Raises IslandLost."""
        try:
            return self._siblings.tell(number)
        except IslandLost as error:
            raise self._lost(error) from error

    def tell_all(self, values: list[float]) -> list[list[float]]:
        """As tell(), of as many values on all ranks."""
        try:
            return self._siblings.tell_all(values)
        except IslandLost as error:
            raise self._lost(error) from error

    def broadcast(self, part: Tensor, parameter: Tensor) -> None:
        """From the first rank that holds this part of a parameter to the others. Raises IslandLost."""
        try:
            self._siblings.broadcast(part, parameter)
        except IslandLost as error:
            raise self._lost(error) from error

    def rejoin(self, timeout: float | None) -> None:
        """All ranks together. Raises IslandLost where a sibling does not come, and what the others raise."""
        self._end_watch()
        self._await_end()
        join_together(self._siblings, lambda: self.comm.rejoin(timeout), lambda _: self._await_end())
        self.is_out = False
        self._begin_watch()

    def explained(self, error: BaseException) -> BaseException:
        """An error out of the user's code: IslandLost where a collective broke because the island did."""
        if not isinstance(error, RuntimeError):  # as all are that torch's collectives raise
            return error
        suspicious = self._end() is not None or _INNER.search(str(error)) is not None
        return self._lost(error) if suspicious and self._await_end() is not None else error

    def close(self) -> None:
        self._end_watch()
        self._siblings.close()

    # ---- how a call has ended ------------------------------------------------------------------------------

    def _verdict(self, failed: PcclError | None) -> int:
        if failed is None:
            return DONE
        if isinstance(failed, OUT_OF_RUN):
            return OUT
        return REFUSED if isinstance(failed, MismatchError) and self._end() is not None else FAILED

    def _raise_for(self, sibling: int, verdict: int) -> NoReturn:
        """What ended the call for a sibling ends it here."""
        if verdict == FAILED:
            raise CollectiveError(f"the operation failed at rank {sibling} of this island")
        end = self._await_end()
        kind = MismatchError if verdict == REFUSED else Evicted
        raise kind(f"rank {sibling} of this island is out of the run, and so is the island: {end}")

    def _end(self) -> PcclError | None:
        """Why the run goes on without this peer."""
        try:
            _ = self.comm.world_size
        except PcclError as error:
            return error
        return None

    def _await_end(self, seconds: float = END_S) -> PcclError | None:
        until = time.monotonic() + seconds
        while (end := self._end()) is None and time.monotonic() < until:
            time.sleep(0.01)
        return end

    def _lost(self, cause: BaseException) -> IslandLost:
        """With what the master says, if it does."""
        end = self._await_end()
        self.is_out = True
        why = readable(str(end if end is not None else cause)).splitlines()[0]
        gone = [rank for peer, rank in self._ranks.items() if re.search(rf"\bpeer {peer}\b", why)]
        gone = [rank for rank in gone if rank != self._siblings.rank]
        who = f"rank {gone[0]} of this island is gone" if gone else "this island is broken"
        return IslandLost(f"{who}: {why}. End this process and start the island anew; the others train on")

    # ---- the place in the run ------------------------------------------------------------------------------

    def _check_place(self) -> None:
        """Of a Communicator that the caller made."""
        rank, size = self._siblings.rank, self._siblings.size
        own = next(peer for peer in self.comm.peers() if peer.id == self.comm.id)
        ranks = [peer for peer in self.comm.peers() if peer.island == own.island]
        if (own.island_rank, len(ranks)) != (rank, size):
            raise UsageError(
                f"the communicator is rank {own.island_rank} of {len(ranks)} in island {own.island!r}, and "
                f"this process is rank {rank} of {size}: pass island_size={size}, group={rank}"
            )

    def _begin_watch(self) -> None:
        peers = self.comm.peers()
        self.name = next(peer.island for peer in peers if peer.id == self.comm.id)
        self._ranks = {peer.id: peer.island_rank for peer in peers if peer.island == self.name}
        if self._siblings.size > 1:
            self._watch = Watch(lambda: self.comm.world_size, self._on_end)

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.stop()
        self._watch = None

    def _on_end(self, error: PcclError) -> None:
        """On the watch's thread. Where a sibling is dead, collectives of the model can only be given up."""
        logger.warning("island %s is out of the run: %s", self.name, readable(str(error)))
        if any(f"peer {peer} is gone" in str(error) for peer in self._ranks):
            abort([group for group in self._groups if dist.get_backend(group) == "nccl"])
