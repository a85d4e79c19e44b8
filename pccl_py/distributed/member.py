"""A peer whose group may be named by its peers' ids, as ranks were when the caller last looked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..arguments import ALGORITHMS, ON_LOSS, SCOPES, seconds_of
from ..block_calls import ALL_GATHER, ALL_TO_ALL, GATHER, REDUCE_SCATTER, SCATTER
from ..communicator import Communicator
from ..config import Config
from ..quantization import NO_QUANTIZATION
from ..tensors import Tensor, operands
from ..transfers import TRANSFER, transfer_operands
from ..work import Work

ALL_REDUCE, BROADCAST, BARRIER = 1, 2, 3
OPS = {"sum": 1, "avg": 2, "prod": 3, "min": 4, "max": 5}

__all__ = ["ALL_GATHER", "ALL_TO_ALL", "GATHER", "REDUCE_SCATTER", "SCATTER", "Member", "member_of"]


class Member(Communicator):
    """A Communicator that posts for a group of a known size: another size fails the operation on all peers.

    Whoever uses it posts in one order on all peers, from whatever threads.
    """

    def _check_order(self, counted: tuple[int, int, int]) -> None:
        """The order of the calls is the caller's business: torch posts from several threads."""

    @property
    def is_member(self) -> bool:
        """Not any more when it has left, or the run goes on without it."""
        return self._finalizer.alive and bool(self._current) and self._current[0].stage() == "member"

    def ids(self) -> tuple[int, ...]:
        """The peers of the group by rank, as the view is now."""
        return tuple(self._ids())

    def whole(
        self,
        call: int,
        tensors: Sequence[Tensor],
        out: Sequence[Tensor] | None,
        *,
        peers: int,
        on_loss: str,
        timeout: float | None,
        op: str = "sum",
        root: int = 0,
        tag: int | None = None,
    ) -> Work:
        """all_reduce, broadcast or barrier. `peers` 0: whoever is there. `root`: a peer's id."""
        items = operands(list(tensors), None if out is None else list(out)) if tensors else []
        work = self._post(
            call,
            items,
            (tuple(tensors), out),
            op=OPS[op],
            root=root,
            peers=peers,
            tag=tag,
            scope="group",
            on_loss=on_loss,  # type: ignore[arg-type]  # one of its two values
            async_op=True,
            timeout=timeout,
        )
        assert isinstance(work, Work)
        return work

    def reduce_one(
        self, tensor: Tensor, code: int, op: int, *, peers: int, on_loss: str, timeout: float | None
    ) -> Work:
        """all_reduce of one dense CPU tensor in place, whose dtype has the number `code`: as whole(), without
        the looks at what it is not."""
        address = tensor.data_ptr()
        operation = self._peer.post(
            call=ALL_REDUCE,
            scope=SCOPES["group"],
            name=0,
            op=op,
            root=0,
            weight=None,
            on_loss=ON_LOSS[on_loss],
            seconds=seconds_of(timeout, self._config.operation_timeout_s),
            algorithm=ALGORITHMS["auto"],
            quantization=NO_QUANTIZATION,
            blocks=0,
            peers=peers,
            ends=(0, 0),
            tensors=[(address, address, tensor.numel(), code)],
            residuals=(),
            keep=tensor,
        )
        return Work(operation, "all_reduce", weighted=False, keep=(self, tensor))

    def message(
        self, tensors: Sequence[Tensor], ends: tuple[int, int], tag: int, *, timeout: float | None
    ) -> Work:
        """A send, or a recv, by which end this peer is; from peer 0: from whoever sends first."""
        sends, kept = ends[0] == self.id, tuple(tensors)
        work = self._post(
            TRANSFER,
            transfer_operands("the message", list(tensors), sends=sends),
            (kept, None) if sends else (None, kept),
            ends=ends,
            what="send" if sends else "recv",
            tag=tag,
            async_op=True,
            timeout=timeout,
        )
        assert isinstance(work, Work)
        return work

    def blocks(
        self,
        call: int,
        tensors: Sequence[Tensor] | None,
        out: Sequence[Tensor] | None,
        *,
        peers: int,
        timeout: float | None,
        op: str = "sum",
        root: int = 0,
    ) -> Work:
        """A call in blocks for `peers` peers; a side that is None has none."""
        many_in = call in (REDUCE_SCATTER, SCATTER, ALL_TO_ALL)
        many_out = call in (ALL_GATHER, GATHER, ALL_TO_ALL)
        shape = (peers if many_in else 1, peers if many_out else 1, peers)
        options: dict[str, Any] = {"timeout": timeout, "async_op": True, "root": root}
        if call == REDUCE_SCATTER:
            options["op"] = OPS[op]
        sides = [None if side is None else list(side) for side in (tensors, out)]
        work = self._in_blocks(call, sides[0], sides[1], shape, options)
        assert isinstance(work, Work)
        return work


def member_of(address: str, secret: bytes, encrypt: bool, **options: Any) -> Member:
    """Joins, with a secret that need not be in a file, and what it does."""
    options.setdefault("config", Config.load())
    if not secret:
        return Member(address, **options)
    descriptor = os.memfd_create("pccl-secret")
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, secret)
        return Member(address, secret_file=f"/proc/self/fd/{descriptor}", encrypt=encrypt, **options)
    finally:
        os.close(descriptor)
