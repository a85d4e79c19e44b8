"""The remote as a source of loading: what is not here, or damaged here, is fetched. On the caller's
thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ..errors import CheckpointError, NoCheckpointError
from .download import Downloader
from .local_level import LocalLevel
from .patience import Patience
from .remote_level import RemoteLevel
from .remote_verify import verify_remote
from .stats import Stats
from .verify import Report

logger = logging.getLogger("pccl_py")
LISTING_S = 20.0  # who starts waits for it, while the local folder may have all that is needed


class RemoteSource:
    """`settle` returns when no save is under way: one may be about to write over a file of an older step."""

    def __init__(
        self,
        level: LocalLevel,
        remote: RemoteLevel,
        stats: Stats,
        timeout_s: float,
        settle: Callable[[], object],
    ) -> None:
        self._level, self._remote, self._stats, self._settle = level, remote, stats, settle
        closing = threading.Event()  # never set: each call has its deadline
        self._soon = Patience(closing, self._heard, min(LISTING_S, timeout_s))
        self._downloader = Downloader(remote, Patience(closing, self._heard, timeout_s))

    def steps(self) -> list[int]:
        """Those that exist there; none, with a warning, where it cannot be asked."""
        try:
            return self._soon.call(f"list {self._remote.store.url}", self._remote.steps)
        except CheckpointError as error:
            logger.warning("%s: only what is in %s counts", error, self._level.root)
            return []

    def fetch(self, step: int) -> int:
        """The step is whole in the local folder; returns the bytes that came for it. Raises as Downloader
        does."""
        self._settle()
        with self._level.coming(step):
            count = self._downloader.fetch(self._level.root, step) if self._level.leads else 0
        if not count:
            return 0
        self._stats.fetched_bytes += count
        logger.info("step %d: %d bytes came from %s", step, count, self._remote.store.url)
        return count

    def verify(self, step: int | str) -> Report:
        if not isinstance(step, int):
            step = max(self._remote.steps(), default=-1)
            if step < 0:
                raise NoCheckpointError(f"no step at {self._remote.store.url}")
        return verify_remote(self._remote, self._downloader, step)

    def _heard(self, text: str | None, helps: bool) -> None:
        if text is not None:
            logger.info("%s", text)
