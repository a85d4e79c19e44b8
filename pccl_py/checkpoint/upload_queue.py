"""Committed steps on their way to the remote, one after the other, on a thread of their own.

On several ranks each sends the shards that it has, and rank 0 the manifest after all. Every committed step
that is to be uploaded is one round for every rank, in the order of commits; rank 0 may say in it that the
step is left out, because newer ones wait. Steps that wait or are under way are held: retirement leaves them
alone.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

from ..errors import BusyError, CheckpointError
from . import folder
from . import manifest as manifests
from .bandwidth import Bandwidth
from .coordination import Coordination
from .local_level import LocalLevel
from .manifest import Manifest
from .patience import Closing, Patience
from .remote_level import RemoteLevel
from .remote_settings import RemoteSettings
from .retention import keepers
from .stats import Stats
from .upload import Counts, Uploader
from .upload_faults import UploadFaults
from .upload_journal import Journal
from .upload_round import Round
from .upload_turn import Turn
from .worker_thread import WorkerThread

logger = logging.getLogger("pccl_py")
WAITING_MAX = 2  # steps that wait; more of them are saves that the remote cannot follow
SLACK = 2  # so many more are held, on all ranks
EXCHANGE_S = 30 * 86400.0  # a remote may be away for long; closing ends it


class UploadQueue:
    """`add` and `wait` on other threads; all else on the thread of this object."""

    def __init__(
        self,
        level: LocalLevel,
        remote: RemoteLevel,
        coordination: Coordination,
        settings: RemoteSettings,
        stats: Stats,
    ) -> None:
        self._level, self._remote, self._settings, self.stats = level, remote, settings, stats
        self._coordination = coordination
        self._leads = coordination.world.rank == 0
        self._closing = threading.Event()
        self._changed = threading.Condition()
        self._waiting: deque[int] = deque()
        self._busy = True  # until it is known what an earlier process left
        self.faults = UploadFaults(self._changed, stats, level.root, settings.timeout_s)
        self._rounds = 0
        self._swept = False
        self._patience = Patience(self._closing, self.faults.heard)
        self._turn = Turn(remote.store, level.root, self._leads, self._patience, self._closing, self.faults)
        self._journal = Journal(level.root, *coordination.world[:2])
        bandwidth = Bandwidth(settings.bandwidth, self._closing)
        self._uploader = Uploader(
            remote.store, self._journal, bandwidth, self._patience, settings.compression, self._turn.beat
        )
        self._present = [step for step in level.whole_steps() if settings.wants(step)]
        self._held: set[int] = set()
        for step in self._present:
            self._hold(step)
        self.thread = WorkerThread(self._work, "pccl-upload")

    def add(self, step: int) -> None:
        """It is committed here; from the thread that commits."""
        if self._settings.wants(step):
            with self._changed:
                self._hold(step)
                self._waiting.append(step)
                self._let_go()
                self._changed.notify_all()

    def _hold(self, step: int) -> None:
        self._held.add(step)
        self._level.holds.add(step)

    def _release(self, step: int) -> None:
        if step in self._held:
            self._held.discard(step)
            self._level.holds.release(step)

    def _let_go(self) -> None:
        """Of steps that will be left out: a remote that is away for hours must not fill the disk here. Later
        than rank 0 leaves them out, which may be some commits behind."""
        for step in list(self._waiting)[: -WAITING_MAX - SLACK]:
            if not self._settings.stays(step):
                self._release(step)

    def wait(self, timeout_s: float) -> None:
        """Until all is there. Raises what went wrong, or that time is over."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._idle() or self.faults.waiting, timeout_s):
                raise CheckpointError(self._late(timeout_s))
        self.faults.raise_it()

    def close(self, timeout_s: float) -> None:
        """Gives the uploads so much time; what is not there then, the next Checkpointer goes on with."""
        ended = time.monotonic() + timeout_s
        faults: list[CheckpointError] = []
        while True:
            try:
                self.wait(max(ended - time.monotonic(), 0.0))
                break
            except CheckpointError as error:
                faults.append(error)
                if time.monotonic() >= ended or isinstance(error, BusyError):
                    break
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        if self.thread.is_alive() and not self._at_rest:
            self._coordination.stop()
        self.thread.doing = self._patience.doing
        stays = f"steps stay in {self._level.root}, and the next Checkpointer there goes on with them"
        if left := self.thread.end(stays):
            faults.append(left)
        if faults:
            raise faults[0]

    @property
    def _at_rest(self) -> bool:
        with self._changed:
            return self._idle()

    def _idle(self) -> bool:
        return not self._busy and not self._waiting

    def _late(self, timeout_s: float) -> str:
        steps = ", ".join(
            map(str, [*([self.stats.uploading] if self.stats.uploading is not None else []), *self._waiting])
        )
        why = f": {self.stats.remote_fault}" if self.stats.remote_fault else ""
        return (
            f"step {steps or '?'} is not at {self._remote.store.url} after {timeout_s:.0f} s{why}; "
            f"it stays in "
            f"{self._level.root}, and uploading goes on, also by the next Checkpointer on that folder"
        )

    def _work(self) -> None:
        with suppress(Closing):
            try:
                self._waiting_from_before()
            except CheckpointError as error:
                self.faults.add(error)
            while True:
                step = self._next()
                try:
                    self._upload(step)
                except CheckpointError as error:
                    self._failed(step, error)
                except Closing:
                    raise
                except Exception as error:  # ours; the training must not end by it
                    self._failed(
                        step, CheckpointError(f"upload of step {step}: {type(error).__name__}: {error}")
                    )
                finally:
                    self.stats.uploading = None
                    with self._changed:
                        self._release(step)
        if self._idle():
            self._turn.give_back()

    def _next(self) -> int:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._closing.is_set(), self._turn.beat_s)
                if self._closing.is_set():
                    raise Closing
                if self._waiting:
                    self._busy = True
                    return self._waiting.popleft()
            self._turn.beat_idle()

    def _waiting_from_before(self) -> None:
        """Steps that an earlier process had committed here and not there; rank 0 says which."""
        words = b""
        if self._leads:
            there = self._patience.call(f"list {self._remote.store.url}", self._remote.steps)
            words = json.dumps(self._unsent(there)).encode()
        unsent = json.loads(self._exchange("begin", words)[0])
        with self._changed:
            self._waiting.extendleft(reversed([step for step in unsent if step in self._present]))
        for step in self._present:
            if step not in unsent:
                with self._changed:
                    self._release(step)

    def _unsent(self, there: list[int]) -> list[int]:
        stay = keepers([*there, *self._present], self._settings.keep, self._settings.keep_every)
        newest = max(there, default=-1)
        return [step for step in self._present if step in stay and step > newest]

    def _upload(self, step: int) -> None:
        self._rounds += 1
        self.stats.uploading = step
        begun = time.perf_counter()
        path = folder.step_path(self._level.root, step)
        found = folder.read_step(path)
        made = found.manifest if found is not None else None
        plan = self._agree(step, made, [] if found is None else [*found.missing])
        if plan is None or made is None:
            return
        data = manifests.encode(made)
        counts = Counts()
        fault = ""
        try:
            counts = self._uploader.send(path, made, plan.seal, plan.shards)
        except CheckpointError as error:
            fault = str(error)
        self._all_fine("sent", step, fault)
        fault = ""
        if self._leads:
            try:
                self._publish(step, data)
            except CheckpointError as error:
                fault = str(error)
        self._all_fine("done", step, fault)
        self._journal.forget()
        with self._changed:
            self.stats.add_upload(step, counts.sent, counts.kept, time.perf_counter() - begun)

    def _agree(self, step: int, made: Manifest | None, missing: list[str]) -> Round | None:
        """What this rank sends; None: nobody sends this step, since it is there, or newer ones wait."""
        mine: dict[str, Any] = {"has": []}
        if made is not None:
            mine["has"] = [i for i, shard in enumerate(made.shards) if shard.file not in missing]
        if self._leads:
            mine |= self._decision(step, made)
        words = [json.loads(text) for text in self._exchange("plan", json.dumps(mine).encode())]
        if fault := words[0].get("fault"):
            raise CheckpointError(fault)
        if words[0].get("skip"):
            self.stats.upload_skipped += 1
            return None
        if words[0].get("there") or made is None:
            return None
        return Round.of(step, made, [said["has"] for said in words], self._coordination.world.rank)

    def _decision(self, step: int, made: Manifest | None) -> dict[str, Any]:
        with self._changed:
            newer = len(self._waiting)
        if newer > WAITING_MAX and not self._settings.stays(step):
            return {"skip": True}
        if made is None:
            return {"fault": f"step {step} is not in {self._level.root} any more, and not uploaded"}
        try:
            self._turn.take()
            there = self._patience.call(f"look for step {step}", lambda: self._remote.seal(step))
            if there == manifests.encode(made):
                return {"there": True}
            if there is not None:
                self._patience.call(f"replace step {step}", lambda: self._remote.make_way(step))
        except CheckpointError as error:
            return {"fault": str(error)}
        return {}

    def _publish(self, step: int, data: bytes) -> None:
        self._turn.keep()
        self._patience.call(f"publish step {step}", lambda: self._remote.publish(step, data))
        gone = self._patience.call("retire steps", lambda: self._remote.retire(step))
        if not self._swept:  # what killed processes left; nothing of ours is half sent now, on any rank
            self._patience.call("sweep", self._remote.sweep)
            self._swept = True
        with self._changed:
            self.stats.remote_retired += len(gone)

    def _all_fine(self, what: str, step: int, fault: str) -> None:
        given = self._exchange(what, fault.encode())
        for rank, text in enumerate(given):
            if text:
                of = f"rank {rank}: " if len(given) > 1 else ""
                raise CheckpointError(f"step {step} is not uploaded: {of}{text.decode()}")

    def _exchange(self, what: str, words: bytes) -> list[bytes]:
        """As long as it takes: another rank may wait for a remote that is away."""
        try:
            return self._coordination.exchange(f"upload/{self._rounds}/{what}", words, EXCHANGE_S)
        except CheckpointError:
            if self._closing.is_set():
                raise Closing from None
            raise

    def _failed(self, step: int, error: CheckpointError) -> None:
        logger.warning("step %d: %s", step, error)
        self._swept = False
        with self._changed:
            self.stats.upload_failed += 1
        self.faults.add(error)
