"""Steps that must not be retired now: being read, being uploaded, or waiting for it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Holds:
    """Any thread. A step may be held several times."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count: Counter[int] = Counter()

    def add(self, step: int) -> None:
        with self._lock:
            self._count[step] += 1

    def release(self, step: int) -> None:
        with self._lock:
            self._count[step] -= 1
            if self._count[step] <= 0:
                del self._count[step]

    def steps(self) -> set[int]:
        with self._lock:
            return set(self._count)

    @contextmanager
    def held(self, step: int) -> Iterator[None]:
        self.add(step)
        try:
            yield
        finally:
            self.release(step)
