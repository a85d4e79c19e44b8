"""One run writes to a URL at a time: its owner object changes while that run lives.

No clocks are compared: who wants a URL of another run watches the object, and takes it over when it has not
changed for LEASE_S of its own time. A conditional put decides between two who want it. A run that comes back
with its local folder is the same run, and waits for nothing.
"""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

from ..errors import BusyError, DamagedError
from ..values import bounded_json
from .remote_store import RemoteStore

OWNER = ".owner.json"
OWNER_BYTES_MAX = 4096
LEASE_S = 60.0
BEATS = 4  # in that time


class Lease:
    """Of the run `run`. One thread."""

    def __init__(self, store: RemoteStore, run: str) -> None:
        self._store, self._run = store, run
        self.beat_s = LEASE_S / BEATS
        self._tag: str | None = None  # of our own object, once we have it
        self._seen = ("", 0.0)  # another's tag, and when it was first seen
        self.alive = False  # the other run: its object has changed while we looked
        self._beat = 0.0
        self._count = 0

    @property
    def owned(self) -> bool:
        return self._tag is not None

    def take(self) -> str | None:
        """Tries once; who holds it, None: we do. Raises as the store does."""
        found = self._store.read_tagged(OWNER)
        if found is None:
            return self._put(None)
        data, tag = found
        run, holder = _said(data)
        if run == self._run:
            return self._put(tag)
        if self._seen[0] != tag:
            self.alive = self._seen[0] != ""
            self._seen = (tag, time.monotonic())
        if time.monotonic() - self._seen[1] < LEASE_S:
            return holder
        return self._put(tag)

    def beat(self, at_once: bool = False) -> None:
        """Says that we live, when it is time. Raises BusyError where another run has taken the URL."""
        if not at_once and time.monotonic() - self._beat < self.beat_s:
            return
        if self._tag is not None and self._put(self._tag) is None:
            return
        found = self._store.read_tagged(OWNER)
        if found is None:  # somebody removed it, or the store has lost it
            holder = self._put(None) or ""
            if not holder:
                return
        else:
            run, holder = _said(found[0])
            if run == self._run:  # our own put, whose answer was lost
                self._tag = found[1]
                return
        self._tag = None
        raise BusyError(f"{self._store.url} {taken(holder)}")

    def give_back(self) -> None:
        self._tag = None
        self._store.delete([OWNER])

    def _put(self, was: str | None) -> str | None:
        self._count += 1
        holder = {"run": self._run, "host": socket.gethostname(), "pid": os.getpid(), "beat": self._count}
        words = json.dumps(holder | {"time": time.time_ns()}).encode()
        begun = time.monotonic()
        tag = self._store.put_if(OWNER, words, was)
        if tag is None:
            return "another run, which came at the same moment"
        self._tag, self._beat = tag, begun
        return None


def taken(holder: str) -> str:
    return f"is written by {holder}: give each run its own URL"


def _said(data: bytes) -> tuple[str, str]:
    try:
        found: Any = bounded_json.loads(data, what=OWNER, bytes_max=OWNER_BYTES_MAX, depth_max=2)
        return str(found["run"]), f"process {int(found['pid'])} on {str(found['host'])[:100]!a}"
    except (DamagedError, ValueError, KeyError, TypeError):
        return "", "somebody whose owner object is damaged"
