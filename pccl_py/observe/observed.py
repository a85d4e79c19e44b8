"""The part of a communicator that shows what it does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from .diagnosis import Diagnosis, from_core
from .dump import observe
from .trace_format import decode

EVENTS_SHOWN = 64


class Recorded(Protocol):
    """What the core's peer gives."""

    @property
    def peer_id(self) -> int: ...
    def diagnose(self) -> dict[str, Any] | None: ...
    def events(self) -> bytes: ...


class Observed:
    """Diagnosis and dumps. Any thread may call; none waits for an operation."""

    @property
    def _peer(self) -> Recorded:
        raise NotImplementedError

    def diagnose(self) -> Diagnosis:
        """What runs now and whom it waits for: `print(comm.diagnose())`. Takes a second at most, also where
        the library's own thread is stuck. Raises ClosedError after leave()."""
        peer = self._peer
        copied = peer.events()
        events = tuple(decode(copied).events[-EVENTS_SHOWN:]) if copied else ()
        return from_core(peer.diagnose(), peer.peer_id, events)

    def dump(self, path: str | os.PathLike[str]) -> Path:
        """Writes the last events (`recorded_events` of the configuration, 64 bytes each) to a new file for
        `python -m pccl_py trace`, readable by its owner only. Raises OSError, FileExistsError among them."""
        to, copied = Path(path), self._peer.events()
        with open(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(copied)
        return to

    def _be_observed(self) -> None:
        observe(self)
