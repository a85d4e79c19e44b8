"""Buffers on their way: each is populated on a thread of its own, and counted until it is. All but `_fill`
is of the keeper's loop."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from . import memory
from .calls import Calls
from .holding import Refusal

Done = Callable[[int, Refusal | None], None]


class Populating:
    """What is done is told by `calls`, to the loop."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._pledged: dict[int, int] = {}  # descriptor, bytes

    def expect(self, needed: int, what: str) -> None:
        """Raises Refusal where there is no room for it beside what is on its way."""
        lacking = sum(max(count - memory.held(fd), 0) for fd, count in self._pledged.items())
        free = max(memory.available() - lacking, 0)
        if needed > free:
            raise Refusal("memory", memory.exhausted(needed, free, what), needed, free)

    def start(
        self, name: str, count: int, wanted: Callable[[], bool], done: Done, *, sealed: bool = True
    ) -> None:
        """`wanted`: asked on the way, from the thread; `done`: takes the descriptor, on the loop."""
        fd = memory.make(name, count, sealed=sealed)
        work = threading.Thread(target=self._fill, args=(fd, count, wanted, done), daemon=True)
        self._pledged[fd] = count
        try:
            work.start()
        except RuntimeError:  # no thread can be had
            del self._pledged[fd]
            os.close(fd)
            raise

    def _fill(self, fd: int, count: int, wanted: Callable[[], bool], done: Done) -> None:
        refusal = None
        try:
            memory.fill(fd, count, wanted)
        except OSError as error:
            free = memory.available()
            text = f"{memory.exhausted(count, free, 'a buffer')} ({error.strerror})"
            refusal = Refusal("memory", text, count, free)

        def take() -> None:
            del self._pledged[fd]
            done(fd, refusal)

        self._calls.later(take)
