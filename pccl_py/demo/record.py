"""What the peers of a demonstration said, by peer and by window, and what follows from it.

All times are seconds of this machine's monotonic clock, which its processes share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from .options import Options

Event = dict[str, Any]


@dataclass
class Peer:
    """One process. Times are None until it has happened."""

    name: str
    id: int | None = None
    state: str = "starts"
    window: int = 0  # that it has committed last, or started from
    step: int = 0
    loss: float | None = None
    sent: int = 0
    state_sent: int = 0
    ready_at: float | None = None
    told_at: float | None = None
    admitted_at: float | None = None
    began_at: float | None = None
    began_with: int = 0
    began_digest: str = ""
    killed_at: float | None = None
    ended_at: float | None = None
    windows: dict[int, Event] = field(default_factory=dict)
    losses: list[tuple[float, float]] = field(default_factory=list)  # (time, loss of a batch)
    news: list[tuple[float, str]] = field(default_factory=list)

    def take(self, event: Event) -> None:
        getattr(self, f"_on_{event['event']}", self._on_other)(event)

    def _on_other(self, event: Event) -> None:
        """An event of a newer peer."""

    def _on_ready(self, event: Event) -> None:
        self.ready_at = event["t"]
        self.state = "warm"

    def _on_member(self, event: Event) -> None:
        self.id, self.admitted_at = event["id"], event["t"]
        self.state = "admitted"

    def _on_begins(self, event: Event) -> None:
        self.began_at, self.began_with = event["t"], event["window"]
        self.began_digest = event["digest"]
        self.window = event["window"]
        self.state = "trains"

    def _on_step(self, event: Event) -> None:
        self.window, self.step, self.loss = event["window"], event["step"], event["loss"]
        self.losses.append((event["t"], event["loss"]))

    def _on_window(self, event: Event) -> None:
        self.windows[event["number"]] = event
        self.window, self.step = event["number"], 0
        self.sent, self.state_sent = event["sent"], event["state_sent"]

    def _on_news(self, event: Event) -> None:
        self.news.append((event["t"], event["text"]))

    def _on_end(self, event: Event) -> None:
        self.ended_at = event["t"]
        self.sent, self.state_sent = event["sent"], event["state_sent"]
        self.state = "done"


@dataclass(frozen=True)
class WindowRow:
    """A committed window as all its peers saw it. equal: they hold the same bits, and found the same loss."""

    number: int
    at: float
    held_out: float
    members: tuple[str, ...]
    digests: dict[str, str]
    equal: bool
    attempts: int
    wait_s: float


class Record:
    def __init__(self, options: Options, began_at: float) -> None:
        self.options = options
        self.began_at = began_at
        self.peers: dict[str, Peer] = {}
        self.parameters = 0
        self.corpus = ""
        self.corpus_bytes = 0

    def take(self, name: str, event: Event) -> None:
        self.peers[name].take(event)
        if event["event"] == "ready":
            self.parameters, self.corpus = event["parameters"], event["corpus"]
            self.corpus_bytes = event["bytes"]

    # ---- windows -------------------------------------------------------------------------------------------

    @property
    def windows(self) -> int:
        """Committed so far."""
        return max((max(peer.windows, default=0) for peer in self.peers.values()), default=0)

    def rows(self) -> list[WindowRow]:
        return [self._row(number) for number in range(1, self.windows + 1) if self._saw(number)]

    def _saw(self, number: int) -> dict[str, Event]:
        return {name: p.windows[number] for name, p in self.peers.items() if number in p.windows}

    def _row(self, number: int) -> WindowRow:
        saw = self._saw(number)
        first = next(iter(saw.values()))
        digests = {name: event["digest"] for name, event in saw.items()}
        for name, peer in self.peers.items():
            if peer.began_at is not None and peer.began_with == number:
                digests[name] = peer.began_digest  # a joiner starts from this window's result
        same = {(e["held_out"], tuple(e["contributors"])) for e in saw.values()}
        return WindowRow(
            number=number,
            at=max(event["committed_at"] for event in saw.values()),
            held_out=first["held_out"],
            members=tuple(self._names(first["contributors"])),
            digests=digests,
            equal=len(set(digests.values())) == 1 and len(same) == 1,
            attempts=max(event["attempts"] for event in saw.values()),
            wait_s=min(event["wait_s"] for event in saw.values()),  # of the peer that came last
        )

    def _names(self, ids: list[int]) -> list[str]:
        names = {peer.id: name for name, peer in self.peers.items()}
        return sorted(names.get(i, f"peer {i}") for i in ids)

    # ---- what went wrong, if anything ----------------------------------------------------------------------

    def faults(self) -> list[str]:
        """Empty: every window was committed, by whoever was there, with equal bits."""
        rows, options = self.rows(), self.options
        found = [f"window {row.number}: the peers hold different bits" for row in rows if not row.equal]
        missing = set(range(1, options.windows + 1)) - {row.number for row in rows}
        found += [f"window {number} was lost" for number in sorted(missing)]
        for row in rows:
            alive = {n for n, p in self.peers.items() if self._trained(p, row.number)}
            if alive - set(row.members):
                found.append(f"window {row.number} is without {', '.join(sorted(alive - set(row.members)))}")
        if rows and len(rows) > 1 and not rows[-1].held_out < rows[0].held_out:
            found.append("the loss on held-out text did not fall")
        return found

    def _trained(self, peer: Peer, number: int) -> bool:
        """Whether the window's average must have this peer's part."""
        last = max(peer.windows, default=0) if peer.killed_at else self.options.windows
        return peer.began_at is not None and peer.began_with < number <= last

    # ---- recovery and joining ------------------------------------------------------------------------------

    @property
    def victim(self) -> Peer | None:
        return next((peer for peer in self.peers.values() if peer.killed_at), None)

    @property
    def joiner(self) -> Peer | None:
        late = [p for p in self.peers.values() if p.began_at is not None and p.began_with > 0]
        return late[0] if late else None

    def recovery(self) -> Recovery | None:
        victim = self.victim
        if victim is None or victim.killed_at is None:
            return None
        killed = victim.killed_at
        told = []
        for peer in self.peers.values():
            if peer.began_at is not None and peer.began_at < killed and peer is not victim:
                told += [t - killed for t, text in peer.news if t > killed and "view " in text][:1]
        after = next((row for row in self.rows() if row.at > killed), None)
        if after is None:
            return None
        others = [row.wait_s for row in self.rows() if row.number != after.number]
        wait = median(others) if others else 0.0
        return Recovery(tuple(told), after.number, after.at - killed, after.wait_s, wait, after.attempts)

    def join(self) -> Join | None:
        joiner = self.joiner
        if joiner is None or joiner.told_at is None or joiner.admitted_at is None or joiner.began_at is None:
            return None
        saw = self._saw(joiner.began_with)
        boundary = max((event["committed_at"] for event in saw.values()), default=joiner.told_at)
        return Join(
            joiner.name,
            joiner.began_with,
            waited_s=boundary - joiner.told_at,
            admitted_s=joiner.admitted_at - boundary,
            state_s=joiner.began_at - joiner.admitted_at,
        )

    # ---- traffic -------------------------------------------------------------------------------------------

    def traffic(self) -> list[Traffic]:
        rows = {row.number: len(row.members) for row in self.rows()}
        found = []
        for name, peer in self.peers.items():
            steps = self.options.steps
            ddp = sum(
                2 * (rows[n] - 1) / rows[n] * 4 * self.parameters * steps for n in peer.windows if n in rows
            )
            found.append(Traffic(name, len(peer.windows), peer.sent, peer.state_sent, ddp))
        return found


@dataclass(frozen=True)
class Recovery:
    """Seconds from the kill until each survivor knew, and until the next window was committed; and how long
    the reduction of that window took, against the median of the others."""

    told_s: tuple[float, ...]
    window: int
    committed_s: float
    reduction_s: float
    usual_reduction_s: float
    attempts: int


@dataclass(frozen=True)
class Join:
    """Seconds at the door until `window` was committed, from there to the admission, and from there until it
    had the shared state and began to train."""

    name: str
    window: int
    waited_s: float
    admitted_s: float
    state_s: float


@dataclass(frozen=True)
class Traffic:
    """Bytes that a peer sent; `data_parallel`: what averaging gradients in every step would have sent."""

    name: str
    windows: int
    sent: int
    state_sent: int
    data_parallel: float
