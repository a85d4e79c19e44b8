"""What went wrong with uploads, on its way to the next call of the thread that trains."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from ..errors import CheckpointError
from .stats import Stats

logger = logging.getLogger("pccl_py")


class UploadFaults:
    """`changed` guards this, the stats too, and is notified of a new fault. Any thread."""

    def __init__(self, changed: threading.Condition, stats: Stats, root: Path, timeout_s: float) -> None:
        self._changed, self._stats = changed, stats
        self._root, self._timeout_s = root, timeout_s
        self._fault: CheckpointError | None = None
        self._down_since: float | None = None
        self._told = False

    @property
    def waiting(self) -> bool:
        """Under the lock: whether there is one that nobody was told."""
        return self._fault is not None

    def add(self, error: CheckpointError) -> None:
        """The first one counts."""
        with self._changed:
            self._fault = self._fault or error
            self._changed.notify_all()

    def raise_it(self) -> None:
        """What went wrong since the last call, once."""
        with self._changed:
            fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def now(self, text: str) -> None:
        """Why nothing is sent at this moment."""
        with self._changed:
            self._stats.remote_fault = text

    def heard(self, text: str | None, helps: bool) -> None:
        """Of the store, as Patience tells it: a failure, None: it answers again. One fault for each time that
        it is away for long, or where waiting does not help."""
        with self._changed:
            self._stats.remote_fault = text
            if text is None:
                self._down_since, self._told = None, False
                return
            self._stats.upload_retries += 1
            now = time.monotonic()
            if self._down_since is None:
                self._down_since = now
            away_s = now - self._down_since
            long = away_s > self._timeout_s
            if (not long and helps) or self._told:
                return
            self._told = True
        waited = f" for {away_s:.0f} s" if long else ""
        logger.warning("%s%s", text, waited)
        self.add(CheckpointError(f"{text}{waited}; steps stay in {self._root}, and uploading is tried on"))
