"""Sums over GF(2^8) of blocks that lie with several peers: parities of codes, and what they decode."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from . import arguments
from .config import Config
from .errors import UsageError
from .tensors import Buffer, Tensor, as_list, buffer, check_disjoint
from .work import Operation, OpInfo, Work

_WHAT = "coded_reduce_scatter"
_GROUP = 1  # as numbered by csrc/wire/types.hpp


class CodedTerm(NamedTuple):
    """`coefficient` (of GF(2^8), modulo 0x11d) times block `block` of the peer with rank `rank`."""

    rank: int
    block: int
    coefficient: int


class CodedSum(NamedTuple):
    """The sum of `terms`, for the peer with rank `owner`. It grows from peer to peer in the order of its
    terms, each of another rank; the owner's own block, if it has one in it, comes last."""

    owner: int
    terms: tuple[CodedTerm, ...]


def rotated_sums(world: int, coefficients: Sequence[Sequence[int]]) -> list[CodedSum]:
    """The parities of a code group of `world` peers, each of which holds data and parity.

    coefficients   row j, column i: of block i in parity j; m rows of world - m columns each, as
                   `ReedSolomon.coefficient(j, i)` gives them

    Stripe s has its m parities at ranks s .. s+m-1 and its data behind them, around the group: rank r's block
    i is block i of stripe (r - m - i) mod world, and its output j is parity j of stripe (r - j) mod world. So
    each rank gives world - m blocks and gets m parities, and no rank holds two blocks of a stripe.
    """
    m = len(coefficients)
    k = world - m
    if m < 1 or k < 1 or any(len(row) != k for row in coefficients):
        raise UsageError(
            f"coefficients: {m} rows for {world} peers; pass from 1 to {max(world - 1, 1)} rows, and in each "
            f"as many numbers as data blocks are left ({world} minus the rows)"
        )
    sums = []
    for stripe in range(world):
        for parity, row in enumerate(coefficients):
            terms = (CodedTerm((stripe + m + i) % world, i, int(c)) for i, c in enumerate(row))
            sums.append(CodedSum((stripe + parity) % world, tuple(terms)))
    return sums


class Poster(Protocol):
    """What of the core's Peer is needed here."""

    def post_coded(
        self,
        *,
        name: int,
        seconds: float,
        rank: int,
        world: int,
        sums: Any,
        blocks: list[tuple[int, int]],
        outputs: list[int],
        block_bytes: int,
        rate_limit: int,
        keep: Any,
    ) -> Operation: ...


class CodedCalls:
    """The coded reduce-scatter of Communicator."""

    _config: Config
    _untagged: dict[tuple[int, int, int], tuple[int, weakref.ref[Work]]]

    def _ids(self) -> list[int]:
        raise NotImplementedError

    def _check_order(self, counted: tuple[int, int, int]) -> None:
        raise NotImplementedError

    def coded_reduce_scatter(
        self,
        blocks: Sequence[Tensor],
        out: Sequence[Tensor],
        sums: Sequence[CodedSum],
        *,
        block_bytes: int | None = None,
        rate_limit: float | None = None,
        tag: int | None = None,
        async_op: bool = False,
        timeout: float | None = None,
    ) -> OpInfo | Work:
        """Each sum of blocks over GF(2^8) at its owner: parities, or blocks decoded from what is left.

        blocks        this peer's, by number: contiguous arrays or tensors in host memory, of any dtype, taken
                      as bytes. Those shorter than `block_bytes` count as filled up with zeros
        out           the sums that this peer owns, in the order of `sums`: `block_bytes` each
        sums          the same at all peers of the group (MismatchError); see rotated_sums()
        block_bytes   the same at all peers: of the longest block of any of them. None: of the longest one
                      here
        rate_limit    bytes per second that this peer sends at most, so that other traffic goes first
        tag, async_op, timeout   as all_reduce

        A sum passes through its contributors and then to its owner, chunk by chunk: each but the owner sends
        `block_bytes` for each sum that it has a part in. Blocks are intact and `out` is undefined where it
        raises. As ranks move when somebody leaves, a loss is not repeated: PeerLost on all peers.
        """
        ids, peer = self._ids(), self._poster()
        sources = _buffers(blocks, "block", written=False)
        targets = _buffers(out, "out", written=True)
        if block_bytes is None:
            length = max((b.bytes for b in sources + targets), default=0)
        else:
            length = arguments.whole(block_bytes, "block_bytes", 1, 2**44)
        _check_memory(sources, targets, length)
        name = arguments.name_of(tag)
        if name == 0:
            self._check_order((_GROUP, 0, 0))
        keep = (tuple(blocks), tuple(out))
        operation = peer.post_coded(
            name=name,
            seconds=arguments.seconds_of(timeout, self._config.operation_timeout_s),
            rank=ids.index(self.id) if self.id in ids else len(ids),
            world=len(ids),
            sums=_numbers(sums),
            blocks=[(b.address, b.bytes) for b in sources],
            outputs=[o.address for o in targets],
            block_bytes=length,
            rate_limit=_rate(rate_limit),
            keep=keep,
        )
        work = Work(operation, _WHAT, weighted=False, keep=(self, keep))
        if name == 0:
            self._untagged[_GROUP, 0, 0] = (threading.get_ident(), weakref.ref(work))
        return work if async_op else work.finish()

    @property
    def id(self) -> int:
        raise NotImplementedError

    def _poster(self) -> Poster:
        raise NotImplementedError


def _buffers(tensors: Sequence[Tensor], name: str, *, written: bool) -> list[Buffer]:
    if not isinstance(tensors, list | tuple):
        raise UsageError(f"{_WHAT}: pass a list of arrays or tensors, one for each {name}")
    buffers = []
    for index, tensor in enumerate(as_list(tensors, _WHAT) if tensors else []):
        if getattr(tensor, "is_cuda", False):
            raise UsageError(f"{_WHAT}: {name} {index} is a CUDA tensor: pass host memory")
        buffers.append(buffer(tensor, f"{_WHAT}: {name} {index}", written=written))
    return buffers


def _check_memory(sources: list[Buffer], targets: list[Buffer], length: int) -> None:
    for index, block in enumerate(sources):
        if block.bytes > length:
            raise UsageError(f"{_WHAT}: block {index} has {block.bytes} bytes, block_bytes is {length}")
    for index, output in enumerate(targets):
        if output.bytes != length:
            raise UsageError(
                f"{_WHAT}: out {index} has {output.bytes} bytes, and a sum has {length}: pass block_bytes "
                "where other peers have longer blocks"
            )
    check_disjoint(
        [(b.address, b.bytes) for b in sources + targets],
        [f"{_WHAT}: block {i}" for i in range(len(sources))] + [f"out {i}" for i in range(len(targets))],
        set(range(len(sources))),
    )


def _numbers(sums: Sequence[CodedSum]) -> list[tuple[int, list[tuple[int, int, int]]]]:
    top = arguments.U32_MAX
    return [
        (
            arguments.whole(owner, "a sum's owner", 0, top),
            [
                (
                    arguments.whole(rank, "a term's rank", 0, top),
                    arguments.whole(block, "a term's block", 0, top),
                    arguments.whole(coefficient, "a coefficient", 0, 255),
                )
                for rank, block, coefficient in terms
            ],
        )
        for owner, terms in sums
    ]


def _rate(rate_limit: float | None) -> int:
    if rate_limit is None:
        return 0
    number = isinstance(rate_limit, int | float) and not isinstance(rate_limit, bool)
    if not number or not 1 <= rate_limit < 2**53:
        raise UsageError(f"rate_limit={rate_limit!r}: it is bytes per second, at least 1, or None")
    return int(rate_limit)
