"""The format of dumps, which is also that of a recorder's memory. All numbers are little-endian.

A header of 192 bytes: "PCTRACE1"; u32 bytes of the header, u32 bytes of an entry (64); u64 entries that the
ring holds; u64 entries written so far; i64 ns to add to an entry's time for the wall clock; u64 run;
u64 peer; u64 process; host and island, 64 bytes each, padded with zeros.

Then entries in any order: u64 number, from 1 on (0: none, or half written); i64 time in ns, of a clock that
never jumps; u8 kind, u8 call, u8 scope, u8 zero, u32 group; u32 boundary, u32 name, u32 count (the tag);
u32 from, u32 peer, u32 to; u64 a; u64 b. What `peer`, `a` and `b` mean is said at KINDS. Readers skip entries
of kinds that they do not know, and everything behind the last whole entry.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..errors import PcclError

MAGIC = b"PCTRACE1"
HEADER = struct.Struct("<8sIIQQqQQQ64s64s")
ENTRY = struct.Struct("<QqBBBxIIIIIIIQQ")
ENTRIES_MAX = 1 << 20
BYTES_MAX = HEADER.size + ENTRY.size * ENTRIES_MAX

# In the order of their numbers, from 1 on.
KINDS = (
    "posted",  # a: bytes of its tensors
    "started",  # a: attempt; b: view, incarnation << 32 | number
    "ready",  # from peer: it has come to the call
    "first_sent",  # to peer
    "first_received",  # from peer
    "last_sent",  # a: bytes in all; b: ns in which the link took no more
    "last_received",  # a: bytes in all
    "done",  # the result is whole here
    "committed",  # a: ns since it was posted; b: attempts
    "failed",  # a: error code; b: attempts
    "dropped",  # an attempt ended without a result
    "view",  # a: incarnation << 32 | number; b: members
    "master_found",
    "master_lost",
    "link_up",  # to peer
    "link_lost",  # to peer
    "waits",  # for peer
    "boundary",  # update_topology; a: 0 entered, 1 passed, 2 failed
    "ended",  # the run is over for this peer; a: error code
)
CALLS = (
    "all_reduce",
    "broadcast",
    "barrier",
    "sync_shared_state",
    "update_topology",
    "reduce_scatter",
    "all_gather",
    "gather",
    "scatter",
    "all_to_all",
    "send/recv",
)


class TraceError(PcclError):
    """A file is no dump of recorded events, or is damaged. The text names it."""


class Key(NamedTuple):
    """Names an operation, on all peers alike."""

    scope: int
    group: int
    boundary: int
    name: int
    use: int
    sender: int
    receiver: int

    def __str__(self) -> str:
        if self.name:
            return f"tag {self.name - 1} #{self.boundary}.{self.use}"
        return f"#{self.boundary}.{self.use}"


class Event(NamedTuple):
    """One entry: `at_ns` is of the peer's own clock; `peer`, `a` and `b` as KINDS says."""

    number: int
    at_ns: int
    kind: str
    call: str
    key: Key
    peer: int
    a: int
    b: int


@dataclass(frozen=True)
class Trace:
    """One dump. `wall_ns` added to an event's time gives the wall clock of its host; `lost`: events that were
    overwritten or half written."""

    run: int
    peer: int
    process: int
    host: str
    island: str
    wall_ns: int
    written: int
    events: list[Event] = field(repr=False)

    @property
    def lost(self) -> int:
        """Older events, which newer ones have taken the place of."""
        return max(0, self.written - len(self.events))


def read(path: str | Path) -> Trace:
    """Raises TraceError, also for a file that is too large to be a dump; OSError as open() does."""
    with open(path, "rb") as file:
        data = file.read(BYTES_MAX + 1)
    try:
        return decode(data)
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from None


def decode(data: bytes) -> Trace:
    """Of any bytes: what is not whole is left out, what is no dump raises TraceError."""
    if len(data) < HEADER.size or data[: len(MAGIC)] != MAGIC:
        raise TraceError("this is no dump of recorded events")
    if len(data) > BYTES_MAX:
        raise TraceError("this is larger than any dump")
    _, header, entry, _, written, wall, run, peer, process, host, island = HEADER.unpack_from(data)
    if header != HEADER.size or entry != ENTRY.size:
        raise TraceError(f"a header of {header} bytes and entries of {entry} belong to another version")
    whole = (len(data) - HEADER.size) // ENTRY.size * ENTRY.size
    numbered: dict[int, Event] = {}
    for fields in ENTRY.iter_unpack(memoryview(data)[HEADER.size : HEADER.size + whole]):
        number, at, kind, call, scope, group, boundary, name, count, sender, about, receiver, a, b = fields
        if number and 1 <= kind <= len(KINDS) and 1 <= call <= len(CALLS):
            key = Key(scope, group, boundary, name, count, sender, receiver)
            numbered[number] = Event(number, at, KINDS[kind - 1], CALLS[call - 1], key, about, a, b)
    events = [numbered[number] for number in sorted(numbered)]
    return Trace(run, peer, process, _text(host), _text(island), wall, written, events)


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "replace")
