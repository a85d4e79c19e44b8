"""A cap on bytes per second: paid before they are sent, so that the average is below it at every instant."""

from __future__ import annotations

import threading
import time


class Bandwidth:
    """`bytes_per_s` None: no cap. Any thread; those that wait return when `closing` is set."""

    def __init__(self, bytes_per_s: float | None, closing: threading.Event) -> None:
        self._rate, self._closing = bytes_per_s, closing
        self._lock = threading.Lock()
        self._paid_until = 0.0  # of time.monotonic()

    def take(self, count: int) -> None:
        if self._rate is None:
            return
        with self._lock:
            now = time.monotonic()
            self._paid_until = max(self._paid_until, now) + count / self._rate
            pause = self._paid_until - now
        self._closing.wait(pause)
