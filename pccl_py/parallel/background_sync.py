"""A synchronization of shared state beside the step that runs: who would change the tensors waits for it."""

from __future__ import annotations

import threading

from ..shared_state import SharedState, SyncInfo
from .step_reduction import Comm, synchronize


class BackgroundSync:
    """Starts at once, on a thread of its own. The tensors are only read by others until `join()` returns."""

    def __init__(self, comm: Comm, state: SharedState, tag: int) -> None:
        self.state = state
        self._error: BaseException | None = None
        self._info: SyncInfo | None = None
        self._thread = threading.Thread(target=self._run, args=(comm, tag), name="pccl_py-heal", daemon=True)
        self._thread.start()

    def join(self) -> SyncInfo:
        """Raises what ended it. An interrupt leaves it running: join again."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._info is not None
        return self._info

    def _run(self, comm: Comm, tag: int) -> None:
        try:
            self._info = synchronize(comm, self.state, tag)
        except BaseException as error:
            self._error = error
