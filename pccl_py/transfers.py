"""Operations between two peers: send and recv."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from . import arguments
from .errors import UsageError
from .tensors import Operand, Tensor, as_list, buffer, check_disjoint
from .work import OpInfo, Work

# As numbered by csrc/wire/types.hpp.
TRANSFER = 11
ANYBODY = 0  # as the sending end

Tensors = Tensor | Sequence[Tensor]


class HasId(Protocol):
    """A peer as `peers()` names it."""

    @property
    def id(self) -> int: ...


class Transfers:
    """The operations of Communicator in which two peers take part, and no others.

    The n-th send to a peer with a tag meets the n-th recv from this one there with that tag, counted since
    the last boundary (without a tag: those without). Tensors are numpy arrays or torch CPU tensors, or lists
    of them as one atomic operation; contiguous, of any shape: number of elements and dtype must agree
    (MismatchError).

    The other one is named by its rank in the group, which moves when somebody leaves, or as a PeerInfo, which
    does not. When the other one leaves: PeerLost; when a third one does, it is repeated unseen. Both return
    when the data is there and the master knows. Several messages with one tag may be in flight.
    """

    _post: Any  # of Collectives

    def _ids(self) -> list[int]:
        raise NotImplementedError

    @property
    def id(self) -> int:
        raise NotImplementedError

    def send(
        self,
        tensors: Tensors,
        to: int | HasId,
        *,
        tag: int | None = None,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> OpInfo | Work:
        """Gives the tensors to one peer; options as all_reduce. Returns when it has them."""
        ends = (self.id, self._other(to, "to"))
        return self._transfer("send", tensors, ends, tag=tag, timeout=timeout, async_op=async_op)

    def recv(
        self,
        tensors: Tensors,
        from_: int | HasId | None,
        *,
        tag: int | None = None,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> OpInfo | Work:
        """Fills the tensors with what one peer sends; undefined until it has returned. Else as send.

        `from_` None: the first message with that tag, from whomever; the info's `contributors` names the
        sender. PeerLost when anybody leaves before it has come: that one might have been the sender.
        """
        ends = (ANYBODY if from_ is None else self._other(from_, "from_"), self.id)
        return self._transfer("recv", tensors, ends, tag=tag, timeout=timeout, async_op=async_op)

    def _other(self, peer: int | HasId, what: str) -> int:
        number = getattr(peer, "id", None)
        if not isinstance(number, int):
            ids = self._ids()
            number = ids[arguments.whole(peer, what, 0, max(0, len(ids) - 1))]
        if number == self.id:
            raise UsageError(f"{what} is this peer itself: name another one")
        return number

    def _transfer(self, what: str, tensors: Tensors, ends: tuple[int, int], **options: Any) -> OpInfo | Work:
        kept = tuple(tensors) if isinstance(tensors, list) else tensors
        keep = (kept, None) if what == "send" else (None, kept)
        items = transfer_operands(what, tensors, sends=what == "send")
        posted: OpInfo | Work = self._post(TRANSFER, items, keep, ends=ends, what=what, **options)
        return posted


def transfer_operands(what: str, tensors: Tensors, *, sends: bool) -> list[Operand]:
    """Checked; the side that is not there has the address 0."""
    buffers = [
        buffer(tensor, f"{what}: tensor {index}", written=not sends)
        for index, tensor in enumerate(as_list(tensors, "tensors"))
    ]
    check_disjoint(
        [(b.address, b.bytes) for b in buffers],
        [f"{what}: tensor {index}" for index in range(len(buffers))],
        set(range(len(buffers))) if sends else (),
    )
    return [
        Operand(b.address if sends else 0, 0 if sends else b.address, b.elements, b.code) for b in buffers
    ]
