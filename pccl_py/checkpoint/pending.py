"""Saves on their way: one thread takes each from copied to durable to committed, oldest first."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ..errors import BusyError, CheckpointError
from ..state.train_state import Taken
from . import native
from .commit_words import LEADER_SHARE, Draft
from .local_level import LocalLevel
from .memory_save import MemorySave, Receipt
from .record import record_of
from .save import StagedSave
from .settings import OnBusy, Settings
from .shard_plans import ShardContent
from .stats import SaveInfo, Stats
from .worker_thread import WorkerThread

logger = logging.getLogger("pccl_py")
REASON_S = 2.0  # for the better error to come

AT_EXIT_S = 60.0  # a process that ends without close() waits so long for its saves
_open: weakref.WeakSet[Pipeline] = weakref.WeakSet()


@atexit.register
def _finish_all() -> None:
    for pipeline in list(_open):
        pipeline.finish_at_exit()


@dataclass(slots=True)
class PendingSave:
    """`number`: how many saves this Checkpointer had begun before, the same on all ranks."""

    number: int
    step: int
    begun: float  # of time.perf_counter(), when save() was called
    staged: StagedSave | MemorySave
    job: native.ShardSave | MemorySave
    content: ShardContent
    taken: Taken
    blocked_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Refused:
    number: int
    step: int
    error: CheckpointError
    started: bool  # there may be something of it on the disk


NOTICE_S = 5.0  # a caller that waits longer is told for what


class Pipeline:
    """`add` on the thread that trains; the rest happens on the thread of this object, `committed` too."""

    def __init__(
        self,
        level: LocalLevel,
        settings: Settings,
        stats: Stats,
        committed: Callable[[int], None] | None = None,
    ) -> None:
        self._level, self._settings, self._committed = level, settings, committed
        self.stats = stats
        self._queue: queue.SimpleQueue[PendingSave | _Refused | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._under_way: list[PendingSave] = []
        self._fault: CheckpointError | None = None
        self._process = os.getpid()
        self.thread = WorkerThread(self._work, "pccl-checkpoint")
        _open.add(self)

    def finish_at_exit(self) -> None:
        """Nobody is left who could be told by an error: what is lost is logged. The thread ends here, too:
        one that meets the interpreter's end within the core would abort the process."""
        if os.getpid() != self._process:
            return
        try:
            self.close(min(self._settings.timeout_s, AT_EXIT_S), self._level.stop)
        except CheckpointError as error:
            logger.error("a checkpoint is lost as this process ends, without close(): %s", error)

    @property
    def full(self) -> bool:
        with self._changed:
            return len(self._under_way) >= self._settings.in_flight

    def room(self, on_busy: OnBusy) -> bool:
        """Whether another save may begin, by the policy."""
        if not self.full:
            return True
        if on_busy != "wait":
            return self.decline(on_busy)
        with self._changed:
            self._wait_until(
                lambda: len(self._under_way) < self._settings.in_flight, self._settings.timeout_s
            )
        return True

    def decline(self, on_busy: OnBusy) -> bool:
        """There is no room, and nobody waits for it."""
        with self._changed:
            steps = [pending.step for pending in self._under_way]
            if on_busy == "error":
                raise BusyError(
                    f"the saves of steps {steps} are on their way: save less often, or wait() first"
                )
            self.stats.skipped += 1
        return False

    def check_new(self, step: int) -> None:
        with self._changed:
            if any(pending.step == step for pending in self._under_way):
                raise BusyError(f"step {step} is being saved already: save under another number")

    def busy(self) -> bool:
        with self._changed:
            return bool(self._under_way)

    def add(self, pending: PendingSave) -> None:
        with self._changed:
            pending.blocked_s = time.perf_counter() - pending.begun
            self._under_way.append(pending)
        self._queue.put(pending)

    def refuse(self, number: int, step: int, error: BaseException, started: bool) -> None:
        """This rank has no such save; the others, who wait for its shard, are told why."""
        if not isinstance(error, CheckpointError):
            error = CheckpointError(f"{type(error).__name__}: {error}")
        self._queue.put(_Refused(number, step, error, started))

    def wait(self, timeout_s: float) -> None:
        self.settle(timeout_s)
        self.raise_fault()

    def settle(self, timeout_s: float) -> None:
        """`wait`, which leaves what went wrong for the next call."""
        if timeout_s >= self._settings.timeout_s:  # a save gives up by itself then, and says who is missing
            timeout_s = timeout_s * LEADER_SHARE + 1 + REASON_S  # not before the last of them
        with self._changed:
            self._wait_until(lambda: not self._under_way, timeout_s)

    def raise_fault(self) -> None:
        """What went wrong since the last call, once."""
        with self._changed:
            fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def progress(self) -> tuple[int, int, int]:
        with self._changed:
            return self._progress()

    def _progress(self) -> tuple[int, int, int]:
        parts = [pending.job.progress() for pending in self._under_way]
        return (sum(p[0] for p in parts), sum(p[1] for p in parts), sum(p[2] for p in parts))

    def close(self, timeout_s: float, stop: Callable[[], None]) -> None:
        """`stop`: ends what waits for other ranks, when time is over."""
        _open.discard(self)
        fault: CheckpointError | None = None
        try:
            self.wait(timeout_s)
        except CheckpointError as late:
            fault = late
        finally:
            left = self._end(stop)
        if error := fault or left:
            raise error

    def _end(self, stop: Callable[[], None]) -> CheckpointError | None:
        """Gives up what is under way; an error where the thread does not come back from the disk."""
        with self._changed:
            late = list(self._under_way)
        for pending in late:
            pending.staged.fail(
                CheckpointError(f"step {pending.step} was on its way when the Checkpointer closed")
            )
        if late:
            stop()
        self._queue.put(None)
        return self.thread.end(
            f"{self._level.root} and the memory of that save stay this process's until it comes back"
        )

    def _wait_until(self, true: Callable[[], bool], timeout_s: float) -> None:
        """Under the lock. Says after a while what it waits for."""
        begun = time.monotonic()
        while not self._changed.wait_for(true, min(NOTICE_S, max(begun + timeout_s - time.monotonic(), 0.0))):
            steps = ", ".join(str(pending.step) for pending in self._under_way)
            waited = time.monotonic() - begun
            copied, written, total = self._progress()
            told = f"{copied >> 20} of {total >> 20} MiB copied, {written >> 20} written"
            if waited >= timeout_s:
                raise CheckpointError(f"the save of step {steps} is not durable after {waited:.3g} s: {told}")
            logger.warning("waiting %.0f s for the save of step %s: %s", waited, steps, told)

    def _work(self) -> None:
        while (pending := self._queue.get()) is not None:
            self.thread.doing = f"the save of step {pending.step}"
            if isinstance(pending, _Refused):
                with suppress(Exception):  # the caller has the error
                    self._level.commit(pending.number, pending.step, pending.error)
                if pending.started:
                    self._level.abandon(pending.step)
                continue
            try:
                info = self._finish(pending)
            except CheckpointError as error:
                self._failed(pending, error)
            except Exception as error:  # ours; the training must not end by it
                self._failed(
                    pending, CheckpointError(f"step {pending.step}: {type(error).__name__}: {error}")
                )
            else:
                with self._changed:
                    self.stats.add(info)
            with self._changed:
                self._under_way.remove(pending)
                self._changed.notify_all()
            self.thread.doing = f"the save of step {pending.step}, which the disk still has to give back"
            pending.job.end()  # here: an error's trace may hold it until the training collects garbage
            del pending  # with the tensors it holds: the next one may come late

    def _finish(self, pending: PendingSave) -> SaveInfo:
        outcome = self._durable(pending)
        if isinstance(outcome, CheckpointError):
            self._level.commit(pending.number, pending.step, outcome)
            raise outcome
        draft, receipt, staged_s = outcome
        self.thread.doing = f"the commit of step {pending.step}"
        self._level.commit(pending.number, pending.step, draft)
        durable_s = time.perf_counter() - pending.begun
        self._level.tidy(pending.number, pending.step)
        if self._committed is not None:
            self._committed(pending.step)
        return SaveInfo(
            pending.step,
            pending.blocked_s,
            pending.staged.waited_s,
            staged_s,
            durable_s,
            receipt.file_bytes,
            receipt.direct,
        )

    def _durable(
        self, pending: PendingSave
    ) -> tuple[Draft, native.SaveReceipt | Receipt, float] | CheckpointError:
        """Once this rank's shard is on its disk, and what can be prepared meanwhile is; with the seconds
        until it was copied."""
        try:
            pending.staged.staged()
            staged_s = time.perf_counter() - pending.begun
            draft = self._drafted(pending)
            self.thread.doing = f"the save of step {pending.step}, which the disk is writing"
            receipt = pending.job.wait_durable(self._settings.timeout_s)
            if receipt is None:
                raise CheckpointError(
                    f"step {pending.step}: the disk did not take it within {self._settings.timeout_s:g} "
                    "s; it is "
                    "given up, earlier steps stay"
                )
        except CheckpointError as error:
            return error
        return draft if isinstance(draft, CheckpointError) else (draft, receipt, staged_s)

    def _drafted(self, pending: PendingSave) -> Draft | CheckpointError:
        """While the disk writes: an error is for after that."""
        try:
            record = record_of(
                self._level.world.rank,
                self._level.shard_name(),
                pending.taken,
                pending.content,
                pending.job.sums(),
            )
            return self._level.draft(pending.step, record)
        except CheckpointError as error:
            return error

    def _failed(self, pending: PendingSave, error: CheckpointError) -> None:
        pending.staged.fail(error)
        self._level.abandon(pending.step)
        with self._changed:
            self.stats.failed += 1
            self._fault = self._fault or error
