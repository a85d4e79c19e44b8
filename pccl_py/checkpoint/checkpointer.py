"""Checkpoints beside the training: `save` returns at once, and what it promised is durable soon after."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Literal, Self

from ..errors import BusyError, CheckpointError, UsageError
from ..staging import fence
from ..staging.hooks import hook
from ..staging.pool import Pool
from ..state.train_state import Taken, TrainState, as_state
from . import native
from .coordination import Coordination
from .coordinations import coordination_of
from .known_states import KnownStates
from .load import Loader
from .local_level import LocalLevel
from .manifest import FILE_NAME
from .memory_save import Bytes, MemorySave
from .pending import PendingSave, Pipeline
from .remote_level import RemoteLevel
from .remote_settings import RemoteSettings
from .remote_source import RemoteSource
from .remote_url import open_store, places
from .save import StagedSave
from .settings import OnBusy, Settings
from .shard_plans import ShardContent
from .staging_pool import SaverPool
from .stats import LoadInfo, SaveInfo, Stats
from .targets import Fit
from .upload import Compression
from .upload_queue import UploadQueue
from .verify import Report

Level = Literal["local", "remote"]


class Checkpointer:
    """`Checkpointer("/nvme/run7", keep=3)`; with `every=200`, call `step(n, state)` after each step.

    With a remote: `Checkpointer("s3://bucket/run7", local="/nvme/run7")`: what is durable in the local folder
    is uploaded behind the training, and what the local folder has lost is loaded from there.

    path         folder for the steps; made where there is none. One saver at a time owns it. Or a URL of any
                 store that fsspec knows, which is then the remote; one run at a time owns it
    local        the folder, where `path` is a URL
    every        `step()` saves at steps that this divides; None: only `save()` saves
    keep         so many newest steps stay; older ones are retired, and the room of one is used again
    keep_every   steps that this divides stay, too
    on_busy      a save that comes while `in_flight` others are on their way: "wait", "skip" it, or "error"
    pool_bytes   memory that tensors are copied to on their way to the disk, all that is ever used, made in
                 the background from now on, before the first save needs it. None: as much as the state has,
                 at most a quarter of what is free, made when the first save comes. Less than the state works:
                 then a step may wait for the disk
    pool         that memory itself, a pccl_py.staging.Pool, of this process or in a memfd of yours; it stays
                 yours, and others may use it beside this one
    lazy         tensors that an optimizer of the state alone writes are copied while training goes on, until
                 that optimizer's next step(); False: all are copied before save() returns
    process_group   ranks that save together, each its shards; None: those of torch.distributed where it is
                 initialised. "alone": this process by itself. (rank, world): processes without a group, that
                 hear of each other through `path` alone, which all of them see. A Communicator of its own
                 (another run_name than the training's, min_islands= and start_rank= set): over that one
    timeout_s    seconds that a copy, the disk or another rank may take; the remote may be away so long before
                 a call says so, once. Uploads are tried on all the same
    remote_every         steps that this divides are uploaded; None: all that are saved, unless the remote
                         cannot follow: then the newest ones
    remote_keep, remote_keep_every    as keep and keep_every, at the remote; None: all stay
    remote_bandwidth     bytes per second that uploads of this rank may take
    compression          "zstd": objects are compressed in the background, where it is worth it
    remote_options       of fsspec for that kind of store: {"endpoint_url": ..., "key": ..., "secret": ...}

    Several ranks all make it, and all make the same calls of save, load, gc and close. `path` is one folder
    for all, or one on each host. A step exists when the shards of all ranks are durable, and for none before.

    Any error in the background is raised by the next call, once (of several ranks: after the save that this
    call is for has begun; of uploads: not by load()); training is never ended by it, and earlier steps stay
    as they are. `close()`, or leaving a `with`, waits for what is on its way.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        local: str | os.PathLike[str] | None = None,
        every: int | None = None,
        keep: int = 2,
        keep_every: int | None = None,
        on_busy: OnBusy = "wait",
        pool_bytes: int | None = None,
        pool: Pool | None = None,
        lazy: bool = True,
        process_group: Any = None,
        copy_threads: int = 1,
        write_threads: int = 2,
        in_flight: int = 2,
        timeout_s: float = 600.0,
        remote_every: int | None = None,
        remote_keep: int | None = None,
        remote_keep_every: int | None = None,
        remote_bandwidth: float | None = None,
        compression: Compression | None = None,
        remote_options: Mapping[str, Any] | None = None,
    ) -> None:
        url, root = places(path, local)
        self._settings = Settings(
            every,
            keep,
            keep_every,
            on_busy,
            pool_bytes,
            copy_threads,
            write_threads,
            in_flight,
            timeout_s,
            lazy,
        )
        self._coordination: Coordination = coordination_of(process_group, root, timeout_s)
        self._disk = native.Disk()
        wishes = RemoteSettings(
            remote_every, remote_keep, remote_keep_every, remote_bandwidth, compression, timeout_s
        )
        remote = None
        if url is not None:
            remote = RemoteLevel(open_store(url, remote_options), remote_keep, remote_keep_every)
        self.stats = Stats()
        self._level = LocalLevel(root, self._coordination, keep, keep_every, timeout_s)
        self._source: RemoteSource | None = None
        self._uploads: UploadQueue | None = None
        if remote is not None:
            self._source = RemoteSource(self._level, remote, self.stats, timeout_s, self.wait)
            self._uploads = UploadQueue(self._level, remote, self._coordination, wishes, self.stats)
        added = None if self._uploads is None else self._uploads.add
        self._pipeline = Pipeline(self._level, self._settings, self.stats, added)
        self._pool = SaverPool(pool_bytes, pool, self.stats)
        self._states = KnownStates()
        self._saves = self._loads = 0
        self._closed = False

    def save(self, step: int, state: Any) -> bool:
        """Saves what the state is now, as `step`; False: skipped, because earlier saves were under way.

        state: a TrainState, or a dict of modules, optimizers and other parts by name. On several ranks all
        call it with the same step.
        """
        begun = time.perf_counter()
        return self._begin(step, lambda number: self._start(number, step, self._states.of(state), begun))

    def save_captured(
        self, step: int, content: ShardContent, taken: Taken, capture: native.MemoryCapture, memory: Bytes
    ) -> MemorySave | None:
        """`save` of a state that somebody else captures into `memory`, written from there: of this rank
        all that it holds. None: skipped. Tell what is returned when the capture is complete; its bytes stay
        until it is free. On several ranks all call it with the same step."""
        made: list[MemorySave] = []

        def start(number: int) -> PendingSave:
            count, begun = content.plan.file_bytes, time.perf_counter()
            threads, timeout_s = self._settings.write_threads, self._settings.timeout_s
            path, recycle = self._level.begin(step)
            self._level.make(step)
            made.append(MemorySave(capture, memory, count, self._disk, path, recycle, threads, timeout_s))
            return PendingSave(number, step, begun, made[0], made[0], content, taken)

        return made[0] if self._begin(step, start) else None

    def refuse_captured(self, step: int, error: BaseException) -> None:
        """Instead of save_captured(), where this rank has nothing: the others, who wait for it, hear why."""
        self._saves += 1
        self._pipeline.refuse(self._saves, step, error, False)

    def _begin(self, step: int, start: Callable[[int], PendingSave]) -> bool:
        self._open_only()
        self._saves += 1
        number, started = self._saves, False
        try:
            if self._alone:
                self._raise_fault()
            self._level.check_new(step)
            self._pipeline.check_new(step)
            if not self._room(number):
                return False
            started = True
            pending = start(number)
        except BaseException as error:
            self._pipeline.refuse(number, step, error, started)
            raise
        self._pipeline.add(pending)
        if not self._alone:
            self._raise_fault()  # others have begun this save: so has this rank, whatever was before
        return True

    @property
    def _alone(self) -> bool:
        return self._coordination.world.size == 1

    def _room(self, number: int) -> bool:
        """Whether to save now: by this rank's policy, or by that of rank 0 for all."""
        policy = self._settings.on_busy
        if self._alone or policy == "wait":
            return self._pipeline.room(policy)
        full = self._coordination.world.rank == 0 and self._pipeline.full
        said = self._coordination.exchange(
            f"room/{number}", b"%d" % full, self._settings.timeout_s, writers=[0]
        )
        return self._pipeline.room("wait") if said[0] == b"0" else self._pipeline.decline(policy)

    def _start(self, number: int, step: int, state: TrainState, begun: float) -> PendingSave:
        for optimizer in state.optimizers():
            hook(optimizer)
        taken = state.take(self._level.world)
        if not self._settings.lazy:
            taken = taken.at_once()
        content = self._states.content(state, taken)
        pool = self._pool.of(content)
        path, recycle = self._level.begin(step)
        job = native.ShardSave(
            pool,
            self._disk,
            path=path,
            recycle=recycle,
            header=content.plan.header,
            regions=content.places,
            foreign=content.foreign,
            block_bytes=self._level.block_bytes,
            copy_threads=self._settings.copy_threads,
            write_threads=self._settings.write_threads,
            exists_by=FILE_NAME,
        )
        staged = StagedSave(job, content, self._settings.timeout_s)
        staged.start()
        return PendingSave(number, step, begun, staged, job, content, taken)

    def prepare(self, state: Any) -> None:
        """Makes the pool, all its pages, and the plan of this state's file, before the training begins: else
        the first save does that on its way. Takes up to half a second for each GiB; in a new virtual machine,
        whose host gives memory when it is first touched, five."""
        self._open_only()
        state = self._states.of(state)
        self._pool.of(self._states.content(state, state.take(self._level.world)), warm=True)

    @property
    def every(self) -> int | None:
        """Steps that this divides are saved by `step()`; None: by `save()` alone."""
        return self._settings.every

    def step(self, step: int, state: Any) -> bool:
        """`save`, at the steps that `every` says."""
        every = self._settings.every
        if every is None:
            raise UsageError("step() of a Checkpointer without every=: pass it, or call save()")
        return step % every == 0 and self.save(step, state)

    def last(self, step: int, state: Any, timeout_s: float) -> bool:
        """`save`, unless that step is there or on its way, and waits until it is durable: for a process that
        was told to end. On several ranks all call it. Raises what went wrong, or that time is over."""
        with suppress(BusyError):
            if not self.save(step, state):  # earlier ones are on their way
                self._pipeline.settle(timeout_s)
                self.save(step, state)
        self.wait(timeout_s)
        return True

    def wait(self, timeout_s: float | None = None, *, level: Level = "local") -> SaveInfo | None:
        """Until nothing is on its way to that level; the newest durable save. Raises what went wrong, or that
        time is over. level="remote": until it is uploaded, too."""
        most = self._settings.timeout_s if timeout_s is None else timeout_s
        begun = time.monotonic()
        self._pipeline.wait(most)
        if level == "remote":
            self._need_remote()
            if self._uploads is not None:
                self._uploads.wait(max(most - (time.monotonic() - begun), 0.0))
        return self.stats.last

    def load(
        self,
        state: Any,
        step: int | str = "latest",
        *,
        strict: bool = True,
        parts: list[str] | None = None,
        mapping: Any = None,
    ) -> LoadInfo:
        """Reads a step into the state: "latest" is the newest that is whole, older ones are tried after it.

        strict    raise for missing and unexpected names; False: they are told in what is returned
        parts     only these; None: all that the state has
        mapping   {name in the state: name in the checkpoint}, or a function of the first (None: leave it),
                  for tensors of modules, dicts and lists; plain values of those dicts and lists stay

        Waits for saves under way, so that none of them retires what is being read. On several ranks all call
        it, with any layout: each reads what it holds. Raises NoCheckpointError,
        DamagedError for a step asked for that is damaged, StateError for what does not fit.
        """
        self._open_only()
        if self._alone:
            self._pipeline.raise_fault()  # what uploads say waits for a save: a run must be able to begin
        fence.before_write()
        self._pipeline.settle(self._settings.timeout_s)
        self._loads += 1
        loader = Loader(
            self._level, self._disk, self._coordination, self._loads, self._settings.timeout_s, self._source
        )
        return loader.load(as_state(state), step, Fit(strict, parts, mapping))

    def latest(self) -> int | None:
        """The newest complete step, of the folder or the remote; None: there is none."""
        return max(self.steps(), default=None)

    def steps(self, *, level: Level | None = None) -> list[int]:
        """All complete steps, rising; of one level or, None, of both."""
        if level == "remote":
            self._need_remote()
        here = [] if level == "remote" else self._level.steps()
        there = [] if level == "local" or self._source is None else self._source.steps()
        return sorted({*here, *there})

    def verify(self, step: int | str = "latest", *, level: Level = "local") -> Report:
        """Reads all of a step again. `sound`, or each damaged block and the tensors that have bytes there."""
        if level == "remote":
            self._need_remote()
            if self._source is not None:
                return self._source.verify(step)
        return self._level.verify(step)

    def gc(self) -> list[int]:
        """Removes what `keep` and `keep_every` do not hold, and leftovers; the steps that went. On several
        ranks all call it. Waits for saves under way."""
        self._open_only()
        self._pipeline.wait(self._settings.timeout_s)
        return self._level.gc()

    def busy(self) -> bool:
        """Whether a save is on its way."""
        return self._pipeline.busy()

    def progress(self) -> tuple[int, int, int]:
        """Bytes copied, bytes written, bytes in all, of the saves on their way."""
        return self._pipeline.progress()

    def close(self) -> None:
        """Waits for what is on its way, then gives back memory and folder. Raises what went wrong."""
        if self._closed:
            return
        self._closed = True
        self._states.forget()
        with ExitStack() as last:
            last.callback(self._pool.close)
            last.callback(self._coordination.close)
            last.callback(self._give_back)
            if self._uploads is not None:
                last.callback(self._uploads.close, self._settings.timeout_s)
            self._pipeline.close(self._settings.timeout_s, self._coordination.stop)

    def _give_back(self) -> None:
        """The folder; where a disk or a remote keeps a thread that may still write there, after that one."""
        uploads = self._uploads
        if uploads is None:
            self._pipeline.thread.afterwards(self._level.close)
        else:
            self._pipeline.thread.afterwards(lambda: uploads.thread.afterwards(self._level.close))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except CheckpointError as lost:
            if error is None:
                raise
            error.add_note(f"And a checkpoint was lost: {lost}")  # the one that ends the training is raised

    def _open_only(self) -> None:
        if self._closed:
            raise UsageError("this Checkpointer is closed: make a new one")

    def _raise_fault(self) -> None:
        self._pipeline.raise_fault()
        if self._uploads is not None:
            self._uploads.faults.raise_it()

    def _need_remote(self) -> None:
        if self._source is None:
            raise UsageError("this Checkpointer has no remote: give a URL first, and the folder as local=")
