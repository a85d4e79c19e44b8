"""A thread that works behind the training, is told to end, and is waited for only so long.

It may be within a call of a disk or a store that does not come back. Nobody waits for that without an end;
what only its end makes safe, as giving a folder to the next one, it then does itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ..errors import CheckpointError

logger = logging.getLogger("pccl_py")
END_S = 30.0  # for what was told to end, and only has to notice


class WorkerThread:
    """Begins at once. `doing`: what it is in now, in words, set by whoever works on it."""

    def __init__(self, work: Callable[[], None], name: str) -> None:
        self.doing = ""
        self._work = work
        self._lock = threading.Lock()
        self._afterwards: list[Callable[[], None]] = []
        self._over = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        finally:
            with self._lock:
                self._over = True
            for action in self._afterwards:  # nobody adds to it any more
                try:
                    action()
                except Exception as error:
                    logger.error("%s ended late, and then: %s", self._thread.name, error)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def end(self, what_stays: str) -> CheckpointError | None:
        """It has been told to: waits for that. An error names what it is in instead, and is logged."""
        self._thread.join(END_S)
        if not self._thread.is_alive():
            return None
        error = CheckpointError(
            f"the thread {self._thread.name} was told to end and is still in: {self.doing or 'its work'}, "
            f"after {END_S:g} s; {what_stays}"
        )
        logger.error("%s", error)
        return error

    def afterwards(self, action: Callable[[], None]) -> None:
        """Now, where it has ended; else it does this itself when it does."""
        with self._lock:
            if not self._over:
                self._afterwards.append(action)
                return
        action()
