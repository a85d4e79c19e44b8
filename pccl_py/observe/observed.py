"""The part of a communicator that shows what it does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import UsageError
from .dump import observe

if TYPE_CHECKING:
    from .diagnosis import Diagnosis

EVENTS_SHOWN = 64
FIGURES_MAX, NAME_MAX = 32, 64


class Recorded(Protocol):
    """What the core's peer gives."""

    @property
    def peer_id(self) -> int: ...
    def diagnose(self) -> dict[str, Any] | None: ...
    def events(self) -> bytes: ...
    def totals(self) -> dict[str, float]: ...
    def links(self) -> dict[int, dict[str, Any]]: ...
    def show(self, figures: list[tuple[str, float]], /) -> None: ...
    def view(self) -> tuple[int, int, int]: ...
    @property
    def waiting(self) -> int: ...


class Observed:
    """Diagnosis and dumps. Any thread may call; none waits for an operation."""

    @property
    def _peer(self) -> Recorded:
        raise NotImplementedError

    def diagnose(self) -> Diagnosis:
        """What runs now and whom it waits for: `print(comm.diagnose())`. Takes a second at most, also where
        the library's own thread is stuck. Raises ClosedError after leave()."""
        from .diagnosis import from_core  # for those who ask
        from .trace_format import decode

        peer = self._peer
        copied = peer.events()
        events = tuple(decode(copied).events[-EVENTS_SHOWN:]) if copied else ()
        return from_core(peer.diagnose(), peer.peer_id, events)

    def stats(self) -> dict[str, float]:
        """Numbers of this peer, flat, for any logger: `wandb.log(comm.stats())`.

        operations_committed, operations_failed, attempts_redone (beyond each operation's first), bytes_sent,
        bytes_received, operation_seconds (of committed ones, from call to commit), views and links_lost:
        since it was admitted. view, boundaries, waiting (islands at the door), links: now; and of each link
        link_3_bytes_sent, link_3_bytes_received and link_3_rtt_seconds, where 3 is the other peer's id.
        """
        peer = self._peer
        _, view, boundaries = peer.view()
        links = peer.links()
        found: dict[str, float] = {**peer.totals(), "view": view, "boundaries": boundaries}
        found |= {"waiting": peer.waiting, "links": len(links)}
        for other, link in links.items():
            found[f"link_{other}_bytes_sent"] = link["bytes_sent"]
            found[f"link_{other}_bytes_received"] = link["bytes_received"]
            found[f"link_{other}_rtt_seconds"] = link["rtt_s"]
        return found

    def show(self, **figures: float) -> None:
        """What the master's dashboard shows of this peer, beside what it showed before: `comm.show(loss=2)`.
        Names that end with _at are moments, in seconds since 1970, and shown as ages. 32 at most."""
        shown = {**self.__dict__.setdefault("_shown", {}), **figures}
        if len(shown) > FIGURES_MAX or any(len(name) > NAME_MAX for name in shown):
            raise UsageError(
                f"a peer shows {FIGURES_MAX} figures at most, with names of {NAME_MAX} letters at most"
            )
        values = [(name, float(value)) for name, value in shown.items()]
        self.__dict__["_shown"] = shown
        self._peer.show(values)

    def dump(self, path: str | os.PathLike[str]) -> Path:
        """Writes the last events (`recorded_events` of the configuration, 64 bytes each) to a new file for
        `python -m pccl_py trace`, readable by its owner only. Raises OSError, FileExistsError among them."""
        to, copied = Path(path), self._peer.events()
        with open(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(copied)
        return to

    def _be_observed(self) -> None:
        observe(self)
