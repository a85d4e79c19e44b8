"""Messages between two ranks of a group: each pair has a run of its own, joined with its first message.

The only file that knows how messages travel; `Pairs` is what the others use.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..errors import NotBuilt, OperationTimeout, PcclError, PeerLost, UsageError
from ..work import OpInfo, Work
from .group import Group
from .member import BROADCAST, Member
from .pending import Pending
from .staged import lend

IN_FLIGHT_MAX = 1024  # messages of one direction and tag that nobody has waited for
TAG_MAX = 1 << 20
JOIN_S = 2.0  # then look whether the other one still lives, and try again

Join = Callable[[str, int, float], Member]


class Pairs:
    """`join(name, place, seconds)` joins the run `name` as one of two, at rank `place`."""

    def __init__(self, group: Group, join: Join) -> None:
        self._group = group
        self._join = join
        self._lock = threading.Lock()
        self._pairs: dict[int, _Pair] = {}  # by the other's id

    def send(self, tensors: Sequence[torch.Tensor], to: int, tag: int) -> Pending:
        return self._pair(to, tag).move(tensors, tag, sent=True)

    def recv(self, tensors: Sequence[torch.Tensor], source: int, tag: int) -> Pending:
        return self._pair(source, tag).move(tensors, tag, sent=False)

    def recv_any(self, tensors: Sequence[torch.Tensor], tag: int) -> Pending:
        raise NotBuilt("recv from any source waits for messages in the core: name the source")

    def leave(self) -> None:
        with self._lock:
            for pair in self._pairs.values():
                pair.leave()
            self._pairs.clear()

    def _pair(self, other: int, tag: int) -> _Pair:
        peer = self._group._root(other)
        if peer == self._group.id:
            raise UsageError(f"rank {other} is this one: it cannot send to itself")
        if not 0 <= tag < TAG_MAX:
            raise UsageError(f"tag={tag}: messages have tags from 0 to {TAG_MAX - 1}")
        with self._lock:
            if peer not in self._pairs:
                self._pairs[peer] = _Pair(self._group, peer, self._join)
            return self._pairs[peer]


class _Pair:
    """Joins on a thread of its own: the other one may come much later, and may be sending itself."""

    def __init__(self, group: Group, peer: int, join: Join) -> None:
        self._group = group
        self._peer = peer
        self._join = join
        self._member: Member | None = None
        self._counts: dict[tuple[int, bool], int] = {}  # by tag, whether sent
        self._lock = threading.Lock()  # messages of one tag travel in the order of the calls
        self._queue: queue.SimpleQueue[tuple[Deferred, dict[str, Any]] | None] = queue.SimpleQueue()
        self._left = False
        threading.Thread(target=self._run, name="pccl-pair", daemon=True).start()

    def move(self, tensors: Sequence[torch.Tensor], tag: int, *, sent: bool) -> Pending:
        lent = [lend(tensor, "the message", reduced=False, written=not sent) for tensor in tensors]
        with self._lock:
            count = self._counts.get((tag, sent), 0)
            self._counts[tag, sent] = count + 1
            upwards = sent == (self._group.id < self._peer)
            name = (tag * IN_FLIGHT_MAX + count % IN_FLIGHT_MAX) * 2 + upwards
            deferred = Deferred()
            message = {"tensors": [tensor for tensor, _ in lent], "sent": sent, "tag": name}
            self._queue.put((deferred, message))
        backs = [back for _, back in lent if back is not None]
        return self._group._keep(Pending(self._group, deferred, tensors, backs))  # type: ignore[arg-type]

    def leave(self) -> None:
        self._left = True
        self._queue.put(None)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            deferred, message = item
            try:
                deferred.become(self._post(**message))
            except PcclError as error:
                deferred.fail(error)
        if self._member is not None:
            self._member.leave()

    def _post(self, tensors: list[torch.Tensor], sent: bool, tag: int) -> Work:
        if self._member is None:
            self._member = self._joined()
        member = self._member
        ids = member.ids()
        if len(ids) != 2:
            raise self._lost()
        root = member.id if sent else next(peer for peer in ids if peer != member.id)
        limit = self._group.timeout_s
        return member.whole(
            BROADCAST, tensors, None, peers=2, on_loss="raise", timeout=limit, root=root, tag=tag
        )

    def _joined(self) -> Member:
        own = self._group.id
        low, high = sorted((own, self._peer))
        while not self._left:
            if self._peer not in self._group.member.ids():
                raise self._lost()
            try:
                return self._join(f"{low}-{high}", int(own > self._peer), JOIN_S)
            except OperationTimeout:
                continue
        raise PeerLost("this rank left the group before its message could be sent")

    def _lost(self) -> PeerLost:
        return PeerLost(f"peer {self._peer}, the other end of the message, is gone")


class Deferred:
    """A Work that does not exist yet; used as one by Pending and the watcher."""

    def __init__(self) -> None:
        self._there = threading.Event()
        self._lock = threading.Lock()
        self._work: Work | None = None
        self._error: PcclError | None = None
        self._asked: tuple[Any, int] | None = None

    def become(self, work: Work) -> None:
        with self._lock:
            self._work = work
            asked = self._asked
        self._there.set()
        if asked is not None:
            work.notify(*asked)

    def fail(self, error: PcclError) -> None:
        with self._lock:
            self._error = error
            asked = self._asked
        self._there.set()
        if asked is not None:
            asked[0].push(asked[1])

    def notify(self, completions: Any, number: int) -> None:
        with self._lock:
            self._asked = (completions, number)
            work, error = self._work, self._error
        if work is not None:
            work.notify(completions, number)
        elif error is not None:
            completions.push(number)

    def is_completed(self) -> bool:
        return self._there.is_set() and (self._work is None or self._work.is_completed())

    def wait(self, timeout: float | None = None, *, block: bool = False) -> OpInfo:
        if not self._there.wait(timeout):
            raise OperationTimeout("the other end of the message has not come yet: wait again")
        if self._error is not None:
            raise self._error
        assert self._work is not None
        return self._work.wait(timeout, block=block)
