"""Whoever wants to hear of an operation's end without waiting for it: one thread for the whole process."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable

from .. import _core
from ..logs import logger, tie
from ..work import Work

tie(_core)


class Watcher:
    """Calls back when operations end, each from its one thread, which works only then."""

    def __init__(self) -> None:
        self._completions = _core.Completions()
        self._numbers = itertools.count(1)
        self._calls: dict[int, Callable[[], None]] = {}
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def watch(self, work: Work, call: Callable[[], None]) -> None:
        """One call per work: a second one takes the place of the first."""
        self._start()
        number = next(self._numbers)
        self._calls[number] = call
        work.notify(self._completions, number)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pccl-futures", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            for number in self._completions.take(3600.0):
                try:
                    self._calls.pop(number)()
                except Exception:  # of a user's callback: the others' operations go on
                    logger.exception("a callback on a finished operation failed")


_watcher = Watcher()


def watch(work: Work, call: Callable[[], None]) -> None:
    """`call()` once `work` has ended, at once where it has. On a thread of the library's: be short."""
    _watcher.watch(work, call)


def _in_child() -> None:
    global _watcher
    _watcher = Watcher()  # the parent's thread is not here


os.register_at_fork(after_in_child=_in_child)
