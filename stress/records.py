"""What a peer tells the orchestrator: one JSON object per line through a pipe, each in one write.

Every record has `what` and `t`, seconds of CLOCK_MONOTONIC, which all processes of a host share.

    joining                             before it connects or comes back
    member    peer, connect_s           it has been admitted
    refused   why                       turned away at the door; it tries again
    boundary  entered, changed          update_topology returned
    start     window                    the operations of a window are about to be posted
    commit    key, contributors, digest, attempts    an all-reduce succeeded, and its values are right
    synced    key, contributors, digest    the shared state is in sync, its content is right
    kept      revision                     of it, by a peer that the run went on without
    failed    key, error                an all-reduce failed, as it may; its inputs are intact
    wrong     key, text                 a value, a guard or an input is not what it must be
    gone      error                     the run went on without it; it comes back
    left                                it has left politely
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

Record = dict[str, Any]


class Writer:
    """Writes records to a pipe; a record is shorter than what the kernel writes at once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def say(self, what: str, *, t: float | None = None, **fields: Any) -> None:
        record = {"what": what, "t": time.monotonic() if t is None else t} | fields
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        if len(line) > 4096:
            return self.say(what, t=t, text=str(fields)[:2000], key=fields.get("key"))
        os.write(self._descriptor, line)

    def close(self) -> None:
        """In a forked child: only its parent speaks."""
        os.close(self._descriptor)


class Reader:
    """The other end: whole records from whatever bytes have come."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        os.set_blocking(descriptor, False)
        self._rest = b""

    def read(self) -> list[Record]:
        while True:
            try:
                data = os.read(self.descriptor, 1 << 16)
            except BlockingIOError:
                break
            if not data:
                break
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        return [json.loads(line) for line in lines]
