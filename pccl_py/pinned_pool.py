"""Page-locked host memory, kept for the next operation and bounded: it is locked away from everybody else."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import Any

from .cuda_api import DeviceApi, Event

SMALLEST = 1 << 20


class Slab:
    """Host memory for one side of one operation: `memory` is a uint8 tensor, as long as asked or longer."""

    def __init__(self, memory: Any, size: int, *, locked: bool) -> None:
        self.memory = memory
        self.size = size
        self.locked = locked


class PinnedPool:
    """Slabs in powers of two, of at most `bytes_max` bytes together; beyond that they are pageable memory.

    Any thread may call. A slab that is dropped without give() is gone from the pool, and its room is free.
    """

    def __init__(self, api: DeviceApi, bytes_max: int) -> None:
        self._api = api
        self._bytes_max = bytes_max
        self._lock = threading.RLock()  # a finalizer may run inside any of these functions
        self._bytes = 0
        self._idle: list[tuple[Slab, Sequence[Event]]] = []

    @property
    def bytes(self) -> int:
        """Page-locked, idle or lent."""
        return self._bytes

    def take(self, size: int) -> Slab:
        rounded = max(SMALLEST, 1 << max(0, size - 1).bit_length())
        with self._lock:
            if (slab := self._reuse(rounded)) is not None:
                return slab
            if self._bytes + rounded > self._bytes_max:
                self._make_room(rounded)
            if self._bytes + rounded > self._bytes_max:
                return Slab(self._api.pageable(size), size, locked=False)
            slab = Slab(self._api.page_locked(rounded), rounded, locked=True)
            self._bytes += rounded
            weakref.finalize(slab, self._gone, rounded).atexit = False
            return slab

    def give(self, slab: Slab, events: Sequence[Event] = ()) -> None:
        """Devices may read it until the events have happened."""
        if slab.locked:
            with self._lock:
                self._idle.append((slab, events))

    def _reuse(self, size: int) -> Slab | None:
        fitting = [entry for entry in self._idle if entry[0].size == size and self._still(entry)]
        if not fitting:
            return None
        self._idle.remove(fitting[-1])  # the last one used: in the cache, if any is
        return fitting[-1][0]

    def _still(self, entry: tuple[Slab, Sequence[Event]]) -> bool:
        return all(self._api.happened(event) for event in entry[1])

    def _make_room(self, size: int) -> None:
        """By slabs of other sizes that nobody uses."""
        index = 0
        while index < len(self._idle) and self._bytes + size > self._bytes_max:
            if self._still(self._idle[index]):
                del self._idle[index]  # its finalizer counts it
            else:
                index += 1
        self._api.forget_page_locked()

    def _gone(self, size: int) -> None:
        with self._lock:
            self._bytes -= size
