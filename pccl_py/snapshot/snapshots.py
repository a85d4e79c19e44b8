"""Snapshots in memory beside the training: `take` returns at once, and the keeper has it soon after."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from ..checkpoint.known_states import KnownStates
from ..checkpoint.manifest_body import shard_file
from ..checkpoint.memory_save import MemorySave
from ..checkpoint.record import record_of
from ..checkpoint.save import StagedSave
from ..checkpoint.shard_plans import ShardContent
from ..checkpoint.stats import LoadInfo
from ..checkpoint.store_coordination import of_process_group
from ..checkpoint.targets import Fit
from ..errors import CheckpointError, NoSnapshotError, SnapshotError, UsageError
from ..staging import fence
from ..staging.hooks import hook
from ..state.boxed import World
from ..state.train_state import Taken, TrainState, as_state
from ..values.limits import BLOCK_BYTES
from . import limits, native
from .across_hosts import check_parity, connect_by, protect_by
from .behind import Behind, Job
from .buffers import Buffers
from .flushes import Flushes, told
from .holding import older
from .options import OnBusy, check_options
from .restoring import Restoring
from .status import SnapshotInfo, SnapshotStatus
from .table import Table, encode

NAMES_S = 60.0  # for the names of the other ranks
logger = logging.getLogger("pccl_py")


@dataclass(slots=True)
class _Pending:
    step: int
    slot: int
    begun: float
    staged: StagedSave
    job: native.MemoryCapture
    content: ShardContent
    taken: Taken
    flush: MemorySave | None = None
    blocked_s: float = 0.0


class Snapshots:
    """`Snapshots(run="run7", every=10)`; call `step(n, state)` after each step, or `take(n, state)`.

    A keeper process of this host, which outlives the trainer, holds the newest complete snapshot: after a
    crash, `restore(state)` in the new process has it back at the speed of memory.

    comm        the Communicator of the run, which names it, and whose master keepers join
    parity      hosts that may be lost at once; 0: this level alone, which outlives processes. Otherwise the
                keepers of the run code what they hold, each snapshot before the next but one is begun; a
                trainer's name is its own in the whole run then, and restore() brings back what was lost
    domain      what is lost as one, where that is not the host
    rate_limit  bytes per second that a keeper sends for coding; None: any
    code_s      so long a snapshot waits to be coded; then the training goes on without
    every       `step()` takes one at steps that this divides
    run         two runs of one host have different names. trainer: so have two processes of one run that
                take snapshots; None: the rank, where there are ranks
    lazy        tensors that an optimizer of the state alone writes are copied while training goes on, until
                its next step(); False: all are copied before take() returns
    on_busy     a take() that comes while the one before is not complete: "wait", or "skip" it
    orphan_s    a keeper whose trainer is gone for so long frees its memory
    keeper      its name, where one host is to have several: each is lost by itself
    flush_every  snapshots of steps that this divides are written to the disk, too, from the buffer, behind
                the training: no second copy of the tensors, and a checkpoint like any other
    checkpoints  the Checkpointer that writes them, without `every=`; under `protect`, the one given there

    Memory: two buffers as large as the state. Any error in the background is raised by the next call, once;
    the snapshot before stays. Leaving a `with` without an error frees the memory, since the run is over;
    close(), and any other end, leaves it to a successor.
    """

    name = "snapshot"  # as a source of `resume`

    def __init__(
        self,
        comm: Any = None,
        *,
        parity: int = 0,
        domain: str | None = None,
        rate_limit: float | None = None,
        code_s: float = 60.0,
        every: int | None = None,
        run: str | None = None,
        trainer: str | None = None,
        lazy: bool = True,
        on_busy: OnBusy = "wait",
        copy_threads: int = 1,
        orphan_s: float = 1800.0,
        timeout_s: float = 600.0,
        keeper: str = "host",
        flush_every: int | None = None,
        checkpoints: Any = None,
    ) -> None:
        check_parity(comm, parity, code_s)
        check_options(every, on_busy, copy_threads, orphan_s, timeout_s)
        self._every, self._lazy, self._on_busy = every, lazy, on_busy
        self._copy_threads, self._timeout_s = copy_threads, timeout_s
        self._coordination = of_process_group(None)
        rank, size, _ = self._coordination.world
        self._world = World(rank, size, (rank,))  # what others hold alike may be gone with them
        self._flushes = Flushes(flush_every, checkpoints, every)
        named = run or getattr(comm, "run_name", "") or "run"
        protect = protect_by(comm, parity, domain, rate_limit) if parity else None
        self._code_s, self._coded = code_s, bool(parity)
        self._trainers: tuple[str, ...] | None = None  # of all ranks, once they were asked
        self._fault = ""
        self._buffers = Buffers(
            named,
            trainer or _trainer(self._world),
            keeper,
            orphan_s,
            timeout_s,
            protect,
            code_s,
            lambda: getattr(comm, "world_size", 1),
        )
        connect = None if comm is None else connect_by(comm, self._world, timeout_s)
        self._restoring = Restoring(
            self._buffers, self._coordination, connect, timeout_s, code_s, self._coded
        )
        self._preparing = threading.Lock()  # buffers between a look for one and the first copy into it
        self._behind = Behind(self._look_after_keeper)
        self._known = KnownStates()
        self._count = 0  # bytes of the last state
        self._taken = self._skipped = self._failed = 0
        self._last: SnapshotInfo | None = None
        self._completed_at: float | None = None
        self._closed = False

    def take(self, step: int, state: Any) -> bool:
        """What the state is now, as `step`; False: skipped, because the one before is not complete.

        state    a TrainState, or a dict of modules, optimizers and other parts by name

        The first one makes the buffers and waits for that (`prepare` does it earlier). Raises SnapshotError
        for a step that is not newer, and what went wrong in the background.
        """
        return self._take(step, state, last=False)

    def _take(self, step: int, state: Any, *, last: bool) -> bool:
        self._open_only()
        begun = time.perf_counter()
        if type(step) is not int or not 0 <= step <= limits.STEP_MAX:
            raise UsageError(f"step {step!r}: a whole number, 0 or more")
        due = self._flushes.due(step, last)
        with self._preparing:
            pending = self._begun(step, state, due, begun)
        if pending is None:
            return False
        pending.blocked_s = time.perf_counter() - begun
        self._behind.do(
            Job(f"the snapshot of step {step}", lambda: self._finish(pending), pending.staged.fail)
        )
        return True

    def _begun(self, step: int, state: Any, due: bool, begun: float) -> _Pending | None:
        """None: skipped."""
        try:
            self._behind.raise_fault()
            if self._on_busy == "skip" and not due and self._is_busy():
                self._skipped += 1
                return None
            self._behind.wait(self._timeout_s)
            state = self._known.of(state)
            taken = state.take(self._world)
            if not self._lazy:
                taken = taken.at_once()
            pending = self._prepared(step, state, taken, begun)
        except BaseException as error:
            if due:
                self._flushes.refuse(step, error)
            raise
        self._start(pending, due)
        return pending

    def _is_busy(self) -> bool:
        fd = self._buffers.spare_fd
        return self._behind.busy or (fd >= 0 and self._flushes.is_read(fd))

    def _prepared(self, step: int, state: TrainState, taken: Taken, begun: float) -> _Pending:
        content = self._known.content(state, taken)
        self._count = content.plan.file_bytes
        spare = self._buffers.spare(self._count)
        if spare is None:
            self._make_buffers()
            spare = self._buffers.spare(self._count)
            assert spare is not None
        if step <= self._buffers.newest_step:
            raise SnapshotError(older(step, self._buffers.newest_step))
        keeper, slot, pool = spare
        self._flushes.keep_only(keeper.buffers)
        self._flushes.await_free(keeper.buffers[slot], self._timeout_s)
        for optimizer in state.optimizers():
            hook(optimizer)
        job = native.MemoryCapture(
            pool,
            content.plan.header,
            content.places,
            foreign=content.foreign,
            block_bytes=BLOCK_BYTES,
            copy_threads=self._copy_threads,
        )
        staged = StagedSave(job, content, self._timeout_s)
        keeper.begin(slot, step)
        return _Pending(step, slot, begun, staged, job, content, taken)

    def _start(self, pending: _Pending, due: bool) -> None:
        keeper = self._buffers.keeper
        if due and keeper is not None:
            fd = keeper.buffers[pending.slot]
            pending.flush = self._flushes.begin(
                pending.step, pending.content, pending.taken, pending.job, fd, keeper.buffers
            )
        try:
            pending.staged.start()
        except BaseException as error:
            told(pending.flush, error)
            raise

    def _finish(self, pending: _Pending) -> None:
        """Behind the training."""
        try:
            pending.staged.staged()
            told(pending.flush, None)
            content, job = pending.content, pending.job
            size = content.plan.file_bytes
            record = record_of(
                self._world.rank,
                shard_file(self._world.rank, self._world.size),
                pending.taken,
                content,
                (job.block_crcs, job.region_crcs),
            )
            table = encode(Table(self._world.size, BLOCK_BYTES, record, self._names()))
            self._buffers.complete(pending.slot, pending.step, size, table)
        except BaseException as error:
            self._failed += 1
            told(pending.flush, error)
            raise
        self._taken += 1
        self._completed_at = time.monotonic()
        complete_s = time.perf_counter() - pending.begun
        self._last = SnapshotInfo(pending.step, size, pending.blocked_s, pending.staged.waited_s, complete_s)
        self._buffers.prepare(size)  # the other buffer, where it is too small or a keeper was new
        if self._coded:  # the other buffer is needed until this one is coded
            self._fault = self._buffers.await_coded(pending.step, self._code_s)
        if not self._fault:
            self._restoring.taken()

    def _names(self) -> tuple[str, ...]:
        """Of the trainers of all ranks, for those who restore with another number of them."""
        if self._trainers is None:  # once: others may have all names where one waited in vain
            name, limit = self._buffers.trainer.encode(), min(self._timeout_s, NAMES_S)
            try:
                said = self._coordination.exchange("names", name, limit)
                self._trainers = tuple(word.decode() for word in said)
            except CheckpointError as error:
                logger.warning("snapshots that these ranks alone can restore: %s", error)
                self._trainers = ()
        return self._trainers

    def _make_buffers(self) -> None:
        count = self._count
        self._behind.do(
            Job("buffers for snapshots", lambda: self._buffers.prepare(count), lambda error: None)
        )
        self._behind.wait(self._timeout_s)

    def _look_after_keeper(self) -> bool:
        """Behind the training, while there is nothing to do. A dead keeper's successor gets what it held."""
        if self._buffers.is_lost():
            if self._preparing.acquire(blocking=False):  # else a take has its buffers in hand
                try:
                    self._buffers.reattach()
                    if self._count:
                        self._buffers.prepare(self._count)
                finally:
                    self._preparing.release()
        else:
            self._buffers.look()
        return True

    @property
    def flushes(self) -> bool:
        """Whether some are written to the disk, too."""
        return self._flushes.wanted

    def flush_to(self, checkpoints: Any) -> None:
        """As `checkpoints=`, where that was not given."""
        if self._flushes.checkpoints is None:
            self._flushes.to(checkpoints)

    def prepare(self, state: Any) -> None:
        """Starts the keeper and makes both buffers, all their pages, before the training begins: else the
        first take() does that. About 0.3 s for each GiB. Raises SnapshotMemoryError where they do not fit."""
        self._open_only()
        self._behind.wait(self._timeout_s)
        state = self._known.of(state)
        content = self._known.content(state, state.take(self._world))
        self._count = content.plan.file_bytes
        if self._buffers.spare(self._count) is None:
            self._make_buffers()

    def step(self, step: int, state: Any) -> bool:
        """`take`, at the steps that `every` says."""
        if self._every is None:
            raise UsageError("step() of Snapshots without every=: pass it, or call take()")
        return step % self._every == 0 and self.take(step, state)

    def last(self, step: int, state: Any, timeout_s: float) -> bool:
        """`take`, unless there is one of that step, and waits until it is complete and, with parity, coded:
        for a process that was told to end. Whether it is, within the time. Raises what went wrong."""
        until = time.monotonic() + timeout_s
        with suppress(SnapshotError):  # of the one before
            self._behind.wait(timeout_s)
        if self._buffers.newest_step != step:
            self._take(step, state, last=True)
        self._behind.wait(max(until - time.monotonic(), 0.0))
        return not self._fault

    def wait(self, timeout_s: float | None = None) -> SnapshotInfo | None:
        """Until nothing is on its way; the newest complete one of this object's. Raises what went wrong."""
        self._open_only()
        self._behind.wait(self._timeout_s if timeout_s is None else timeout_s)
        return self._last

    def restore(
        self,
        state: Any,
        step: int | str = "latest",
        *,
        strict: bool = True,
        parts: list[str] | None = None,
        mapping: Any = None,
    ) -> LoadInfo:
        """Fills the state from the newest snapshot whose every block has its checksum, or from `step`.

        strict, parts, mapping    as Checkpointer.load

        On several ranks all call it, and restore the newest step that all of them hold; other ranks than
        took it, fewer or more, or laid out otherwise, take of all its snapshots what each needs, between
        processes over links of their own (`comm`). Raises NoSnapshotError where there is none, StateError
        for what does not fit.
        """
        self._open_only()
        fence.before_write()
        self._behind.settle(self._timeout_s)
        known = as_state(state)
        return self._restoring.into(known, step, Fit(strict, parts, mapping), lambda: self._count_of(known))

    load = restore  # as a source of `resume`

    def _count_of(self, state: TrainState) -> int:
        """Bytes of a snapshot of it, about. 0: it is none yet that could be taken."""
        try:
            return self._known.content(state, state.take(self._world)).plan.file_bytes
        except Exception as error:  # of any part of the user's: restoring may be what it needs
            logger.debug("what a snapshot will need is unknown: %s", error)
            return 0

    def steps(self) -> list[int]:
        """All complete steps, rising: the newest, and the one before until another is begun."""
        with suppress(NoSnapshotError):
            self._buffers.attach(start=False)
        return sorted(one.step for one in self._buffers.kept)

    def latest(self) -> int | None:
        """The newest complete step; None: there is none."""
        return max(self.steps(), default=None)

    def is_older_than(self, durable: int | None) -> bool:
        """Whether restore() would find an older step than `durable`, of the newest checkpoint that this rank
        sees (None: none). All ranks call it, and hear the same. What others can bring back comes now."""
        self._open_only()
        self._behind.settle(self._timeout_s)
        return self._restoring.is_older_than(durable)

    def forget(self, after: int) -> None:
        """Gives up snapshots of steps beyond `after`: for a run that goes on from an older one."""
        self._open_only()
        self._behind.settle(self._timeout_s)
        self._buffers.forget(after)

    def status(self) -> SnapshotStatus:
        kept, coded = self._buffers.kept, self._buffers.coded
        age = None if self._completed_at is None else time.monotonic() - self._completed_at
        return SnapshotStatus(
            step=kept[0].step if kept else None,
            age_s=age,
            losses=0 if coded is None else coded.losses,
            coded=None if coded is None or coded.step < 0 else coded.step,
            identical=0 if coded is None else coded.identical,
            unchanged=0 if coded is None else coded.unchanged,
            fault=self._fault,
            bytes=kept[0].bytes if kept else 0,
            memory_bytes=self._buffers.memory_bytes,
            parity_bytes=self._buffers.parity_bytes,
            taken=self._taken,
            skipped=self._skipped,
            failed=self._failed,
            flushed=self._flushes.durable_step,
            last=self._last,
        )

    def close(self, *, free: bool = False) -> None:
        """Waits for what is on its way. `free`: nobody will want these snapshots. Raises what went wrong."""
        if self._closed:
            return
        self._closed = True
        try:
            self._behind.wait(self._timeout_s)
        finally:
            self._behind.stop()
            self._flushes.await_all(self._timeout_s)
            self._restoring.close_strangers(free=free)
            self._buffers.close(free=free)
            self._coordination.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close(free=error is None)
        except (SnapshotError, CheckpointError) as lost:
            if error is None:
                raise
            error.add_note(f"And a snapshot was lost: {lost}")

    def _open_only(self) -> None:
        if self._closed:
            raise UsageError("these Snapshots are closed: make new ones")


def _trainer(world: World) -> str:
    return str(world.rank) if world.size > 1 else os.environ.get("RANK", "0")
