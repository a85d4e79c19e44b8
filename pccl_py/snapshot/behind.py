"""The thread behind the training: it makes buffers, completes snapshots in their order, and looks after the
keeper. One thing at a time; whoever takes snapshots waits for it to be idle, or does not.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import CheckpointError, PcclError, SnapshotError

logger = logging.getLogger("pccl_py")
LOOK_S = 0.5  # how often it sees whether the keeper lives
PATIENCE_S = 60.0  # the longest pause between two attempts to start a keeper
NOTICE_S = 5.0


@dataclass(frozen=True, slots=True)
class Job:
    """`what`: in a sentence that begins with "waiting for"; `failed`: what else happens with its error."""

    what: str
    work: Callable[[], None]
    failed: Callable[[CheckpointError], None]


class Behind:
    """`watch`: called while there is nothing to do; False: what it wanted did not work, ask less often."""

    def __init__(self, watch: Callable[[], bool]) -> None:
        self._watch = watch
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._waiting: list[Job] = []
        self._fault: PcclError | None = None
        self._thread = threading.Thread(target=self._run, name="pccl-snapshots", daemon=True)
        self._thread.start()

    def do(self, job: Job) -> None:
        with self._changed:
            self._waiting.append(job)
        self._queue.put(job)

    @property
    def busy(self) -> bool:
        with self._changed:
            return bool(self._waiting)

    def wait(self, timeout_s: float) -> None:
        """Until it is idle. Raises what went wrong, or SnapshotError where time is over."""
        self.settle(timeout_s)
        self.raise_fault()

    def settle(self, timeout_s: float) -> None:
        begun = time.monotonic()
        with self._changed:
            while not self._changed.wait_for(lambda: not self._waiting, min(NOTICE_S, timeout_s)):
                waited = time.monotonic() - begun
                what = self._waiting[0].what
                if waited > timeout_s:
                    raise SnapshotError(f"after {waited:.0f} s still waiting for {what}")
                logger.warning("waiting %.0f s for %s", waited, what)

    def raise_fault(self) -> None:
        """Once."""
        with self._changed:
            fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def stop(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        pause = LOOK_S
        while True:
            try:
                job = self._queue.get(timeout=pause)
            except queue.Empty:
                pause = LOOK_S if self._look() else min(2 * pause, PATIENCE_S)
                continue
            if job is None:
                return
            self._do(job)

    def _look(self) -> bool:
        try:
            return self._watch()
        except Exception as error:
            logger.warning("snapshots have no keeper: %s", error)
            return False

    def _do(self, job: Job) -> None:
        error: PcclError | None = None
        try:
            job.work()
        except PcclError as fault:
            error = fault
        except Exception as fault:  # ours, or the system's; the training must not end by it
            error = SnapshotError(f"{job.what}: {type(fault).__name__}: {fault}")
        if error is not None:
            job.failed(error if isinstance(error, CheckpointError) else CheckpointError(str(error)))
        with self._changed:
            self._fault = self._fault or error
            self._waiting.remove(job)
            self._changed.notify_all()
