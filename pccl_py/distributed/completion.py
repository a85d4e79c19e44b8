"""Whoever wants to hear of an operation's end without waiting for it: few threads for the whole process."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable

from .. import _core
from ..logs import logger, tie
from ..work import Work

tie(_core)

PATIENCE_S = 0.001
IDLE_MAX = 2  # one takes the next end while the other is in a call


class Watcher:
    """Calls back when operations end: one call after the other, in the order of the ends. A call that is
    not over after PATIENCE_S may wait for another operation's end, and is passed by, on another thread."""

    def __init__(self) -> None:
        self._completions = _core.Completions()
        self._numbers = itertools.count(1)
        self._calls: dict[int, Callable[[], None]] = {}
        self._counting = threading.Lock()
        self._idle = 0  # threads that are in no call
        self._taking = threading.Lock()  # of the thread that waits for the next end
        self._turn = threading.Lock()  # of the thread in a call; another one once that is passed by

    def watch(self, work: Work, call: Callable[[], None]) -> None:
        """One call per work: a second one takes the place of the first."""
        number = next(self._numbers)
        self._calls[number] = call
        self._keep_one_idle()
        work.notify(self._completions, number)

    def _keep_one_idle(self, busy: int = 0) -> None:
        with self._counting:
            self._idle -= busy
            if self._idle == 0:
                self._idle = 1
                threading.Thread(target=self._run, name="pccl-futures", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._taking:
                number = self._next()
                turn = self._next_turn()
            self._keep_one_idle(busy=1)
            try:
                self._calls.pop(number)()
            except Exception:  # of a user's callback: the others' operations go on
                logger.exception("a callback on a finished operation failed")
            turn.release()
            with self._counting:
                if self._idle >= IDLE_MAX:
                    return
                self._idle += 1

    def _next(self) -> int:
        while (number := self._completions.take(3600.0)) is None:
            pass
        return number

    def _next_turn(self) -> threading.Lock:
        if not self._turn.acquire(timeout=PATIENCE_S):
            self._turn = threading.Lock()
            self._turn.acquire()
        return self._turn


_watcher = Watcher()


def watch(work: Work, call: Callable[[], None]) -> None:
    """`call()` once `work` has ended, at once where it has. On a thread of the library's: be short."""
    _watcher.watch(work, call)


def _in_child() -> None:
    global _watcher
    _watcher = Watcher()  # the parent's threads are not here


os.register_at_fork(after_in_child=_in_child)
