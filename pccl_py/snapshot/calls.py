"""Calls from other threads, carried out on the keeper's loop, which alone touches what it holds."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Calls:
    """`wakes`: a descriptor that can be read when there are some; `run` carries them out."""

    def __init__(self) -> None:
        self.wakes, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def later(self, action: Callable[[], None]) -> None:
        self._waiting.put(action)
        with suppress(OSError):
            os.write(self._wake, b"x")

    def ask(self, question: Callable[[], T], timeout_s: float = 60.0) -> T:
        """Its answer, or what it raised. Raises TimeoutError where the loop has ended."""
        answer: Future[T] = Future()

        def carry_out() -> None:
            try:
                answer.set_result(question())
            except BaseException as error:
                answer.set_exception(error)

        self.later(carry_out)
        return answer.result(timeout_s)

    def woken(self) -> None:
        with suppress(OSError):
            os.read(self.wakes, 4096)

    def run(self) -> None:
        while not self._waiting.empty():
            self._waiting.get()()
