"""Memory for what a trainer asks others to bring back, made while its keeper comes into the run and hears
what they have: a first touch takes a third of a second for each GiB."""

from __future__ import annotations

import os
import threading

from . import memory
from .holding import Refusal
from .populating import Populating


class Ahead:
    """Of one trainer. `give_up` and `filled` are of the loop, `take` is of any other thread."""

    def __init__(self) -> None:
        self.wanted = True
        self._over = threading.Event()
        self._lock = threading.Lock()  # a descriptor that comes too late is nobody's: it is closed
        self._fd = -1

    def filled(self, fd: int, refusal: Refusal | None) -> None:
        with self._lock:
            wanted = self.wanted and refusal is None
            if wanted:
                self._fd = fd
        if not wanted:
            os.close(fd)
        self._over.set()

    def give_up(self) -> None:
        fd = self._last_fd()
        if fd >= 0:
            os.close(fd)

    def take(self, count: int, timeout_s: float) -> int:
        """A descriptor of so many bytes with all their pages, the caller's; -1: there was no memory."""
        self._over.wait(timeout_s)
        fd = self._last_fd()
        if fd < 0:
            return -1
        try:
            memory.resize(fd, count)
        except OSError:
            os.close(fd)
            return -1
        return fd

    def _last_fd(self) -> int:
        with self._lock:
            self.wanted = False
            fd, self._fd = self._fd, -1
        return fd


class RoomsAhead:
    """By trainer. On the keeper's loop."""

    def __init__(self, populating: Populating) -> None:
        self._populating = populating
        self._rooms: dict[str, Ahead] = {}

    def expect(self, trainer: str, count: int) -> None:
        """Where there is no memory, nothing happens: whoever brings it says so."""
        if not count or trainer in self._rooms:
            return
        room, wanted = Ahead(), memory.whole_units(count)
        try:
            self._populating.expect(wanted, "what was lost")
            self._populating.start("pccl-0", wanted, lambda: room.wanted, room.filled, sealed=False)
        except (Refusal, OSError, RuntimeError):
            return
        self._rooms[trainer] = room

    def pop(self, trainer: str) -> Ahead | None:
        return self._rooms.pop(trainer, None)

    def give_up(self, trainer: str) -> None:
        """It came, or will not."""
        room = self._rooms.pop(trainer, None)
        if room is not None:
            room.give_up()
