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
        self._fd = -1

    def filled(self, fd: int, refusal: Refusal | None) -> None:
        if self.wanted and refusal is None:
            self._fd = fd
        else:
            os.close(fd)
        self._over.set()

    def give_up(self) -> None:
        self.wanted = False
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def take(self, count: int, timeout_s: float) -> int:
        """A descriptor of so many bytes with all their pages, the caller's; -1: there was no memory."""
        if not self._over.wait(timeout_s) or self._fd < 0:
            self.wanted = False
            return -1
        try:
            memory.resize(self._fd, count)
        except OSError:
            os.close(self._fd)
            return -1
        return self._fd


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
