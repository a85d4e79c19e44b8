"""Ranks that reduce together, on one Communicator: who they are, and how their operations are posted.

Ranks do not move under the caller's feet. `ids` is the membership that the caller was told; it changes only
with a failed operation, which fails on every survivor alike, with a committed one that says who took part, or
at `update_topology()`. With `on_loss="raise"` an operation is for exactly these peers: if somebody has died,
whether before or in it, it raises on all survivors and costs nobody a wrong divisor.

Torch's operations on a group are in whole_calls.py, in_blocks.py and messages.py.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

from ..errors import OperationTimeout, PcclError, PeerLost, UsageError
from ..work import Work
from .errors import translated
from .member import BARRIER, Member
from .pending import Pending
from .staged import Tensors

OnLoss = Literal["retry", "raise"]


class Group:
    """`lock`: held while one posts, so that calls of any thread have an order. `name`: for messages.
    `timeout_s`: of operations."""

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
        self.lock = threading.RLock()
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
        with self.lock:
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

    def keep(self, pending: Pending) -> Pending:
        """Who drops a work does not cancel it."""
        while self._in_flight and self._in_flight[0].done():
            self._in_flight.popleft()
        self._in_flight.append(pending)
        return pending

    def peers_expected(self) -> int:
        """0: whoever is there."""
        return len(self.ids) if self.on_loss == "raise" else 0

    def whole(
        self, call: int, tensors: Tensors, out: Tensors | None, timeout: float | None, **options: Any
    ) -> Work:
        """As Member.whole(), for this group."""
        return self.member.whole(
            call,
            tensors,
            out,
            peers=self.peers_expected(),
            on_loss=self.on_loss,
            timeout=self.timeout_s if timeout is None else timeout,
            **options,
        )

    def blocks(
        self, call: int, tensors: Tensors | None, out: Tensors | None, timeout: float | None, **options: Any
    ) -> Work:
        limit = self.timeout_s if timeout is None else timeout
        return self.member.blocks(call, tensors, out, peers=len(self.ids), timeout=limit, **options)

    def peer_of(self, root: int) -> int:
        """The id of the peer with that rank."""
        if not 0 <= root < len(self.ids):
            raise UsageError(f"rank {root} of group '{self.name}', which has {len(self.ids)} ranks")
        return self.ids[root]


def _see_end_of(pending: Pending) -> None:
    try:
        pending.wait()
    except Exception:  # its own waiter hears it
        return
