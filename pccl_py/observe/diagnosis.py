"""What a peer does now: its operations in flight, and what each waits for, in words too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .trace_format import Event

# Less says nothing about a link.
SLOW_S = 1.0


@dataclass(frozen=True, slots=True)
class LinkNow:
    """How far an operation has come on one link.

    ready            the other end has come to the call, as far as data and messages here tell
    bytes_sent, bytes_received     in this attempt
    sent_ago_s, received_ago_s     seconds since the last of them; -1.0: nothing yet
    queued_bytes     given to the link, and not yet confirmed by the other host
    unread_bytes     came from it, and not read here yet;    source: data comes from it
    offered_chunks   that the other end may read where they lie, on one host, and has not
    full             there is more to send, and the link takes none; full_s: so long, in this attempt
    """

    peer: int
    ready: bool
    source: bool
    bytes_sent: int
    bytes_received: int
    sent_ago_s: float
    received_ago_s: float
    queued_bytes: int
    unread_bytes: int
    offered_chunks: int
    full: bool
    full_s: float

    @property
    def takes_slowly(self) -> bool:
        """There is something for the other end that it, or the way to it, has not taken for a second."""
        waiting = self.full or self.queued_bytes > 0 or self.offered_chunks > 0
        return waiting and max(self.full_s, self.sent_ago_s) >= SLOW_S


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Who keeps an operation waiting, as the master found by comparing what all its peers told.

    trouble          "late": has not come to the call, and computes or is stuck; "elsewhere": waits in another
                     call; "silent": stopped, or cut off; "receives_slowly": does not read what `other` sent;
                     "slow_way": the way from it to `other`; "sends_slowly": `other` has nothing from it
    text             the same in words
    """

    peer: int
    trouble: str
    other: int
    text: str


@dataclass(frozen=True, slots=True)
class OperationNow:
    """An operation in flight. `missing`: peers that have not come to the call, as the master last said; it is
    asked when a caller has waited for `waiting_notice_ms`. `state`: "posted" waits for a view, "running"
    moves data, "held" has its result and waits for the master's commit, "abandoned" waits for its end."""

    call: str
    name: str
    state: str
    age_s: float
    attempts: int
    bytes: int
    bytes_sent: int
    bytes_received: int
    missing: tuple[int, ...]
    hindrances: tuple[Hindrance, ...]
    links: tuple[LinkNow, ...]

    @property
    def late(self) -> tuple[int, ...]:
        """Peers that have not posted the operation: they compute, or wait elsewhere."""
        return tuple(one.peer for one in self.hindrances if one.trouble in ("late", "elsewhere"))

    @property
    def silent(self) -> tuple[int, ...]:
        """Peers of whom the master hears nothing: stopped, or cut off."""
        return tuple(one.peer for one in self.hindrances if one.trouble == "silent")

    @property
    def slow_to_take(self) -> tuple[int, ...]:
        """Peers that have come, and take what is sent to them slowly: they, or the way to them."""
        return tuple(link.peer for link in self.links if link.takes_slowly and link.peer not in self.missing)

    @property
    def slow_to_send(self) -> tuple[int, ...]:
        """Peers from which data came, and then none for a second, though more must come."""
        if self.state != "running" or self.missing:
            return ()
        return tuple(link.peer for link in self.links if link.received_ago_s >= SLOW_S)

    def __str__(self) -> str:
        text = f"{self.call} ({self.name}) for {self.age_s:.1f} s, {self.state}"
        for what, who in (
            ("slow to take", self.slow_to_take),
            ("slow to send", self.slow_to_send),
        ):
            if who:
                text += f"; {what}: peer {', '.join(map(str, who))}"
        for one in self.hindrances:
            text += f"; peer {one.peer}: {one.text}"
        if self.state == "held":
            text += "; the result is here, the commit is not: others still run, or the master is away"
        return text


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`responsive`: the library's own thread answered; where not, only `events` are known (a kernel or a disk
    holds it, or the process was stopped). `master`: its connection is up. `events`: the last ones, newest at
    the end. `print(comm.diagnose())` shows the operations in lines for people."""

    peer: int
    view: tuple[int, int]
    responsive: bool
    master: bool
    at_boundary: bool
    operations: tuple[OperationNow, ...]
    events: tuple[Event, ...]

    @property
    def slow_links(self) -> tuple[LinkNow, ...]:
        """Links that keep an operation waiting, of all operations."""
        return tuple(link for operation in self.operations for link in operation.links if link.takes_slowly)

    def __str__(self) -> str:
        lines = [f"peer {self.peer} in view {self.view[0]}.{self.view[1]}"]
        if not self.responsive:
            lines.append("the library's own thread does not answer")
        elif not self.master:
            lines.append("the master's connection is down")
        if self.at_boundary:
            lines.append("in update_topology")
        return "\n".join([*lines, *(str(operation) for operation in self.operations)])


def from_core(found: dict[str, Any] | None, peer: int, events: tuple[Event, ...]) -> Diagnosis:
    """`found`: what the core says, None where its thread did not answer."""
    if found is None:
        return Diagnosis(peer, (0, 0), False, False, False, (), events)
    operations = tuple(
        OperationNow(
            **{
                **operation,
                "missing": tuple(operation["missing"]),
                "hindrances": tuple(Hindrance(*one) for one in operation["hindrances"]),
                "links": tuple(LinkNow(**link) for link in operation["links"]),
            }
        )
        for operation in found["operations"]
    )
    return Diagnosis(
        found["peer"], found["view"], True, found["master"], found["at_boundary"], operations, events
    )
