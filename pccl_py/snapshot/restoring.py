"""The way of a trainer to the newest sound snapshot: at its host's keeper, else what others bring back."""

from __future__ import annotations

import json
from collections.abc import Callable

from ..checkpoint.coordination import Coordination
from ..checkpoint.stats import LoadInfo
from ..checkpoint.targets import Fit
from ..errors import NoSnapshotError, PcclError, SnapshotError, in_words
from ..state.train_state import TrainState
from .buffers import Buffers
from .restore import Restore
from .several import Connect


class Restoring:
    """`connect`: to the other ranks, None: there is no run. `coded`: others may bring back what is lost; so
    long as `code_s` they may take."""

    def __init__(
        self,
        buffers: Buffers,
        coordination: Coordination,
        connect: Connect | None,
        timeout_s: float,
        code_s: float,
        coded: bool,
    ) -> None:
        self._buffers, self._coordination, self._connect = buffers, coordination, connect
        self._timeout_s, self._code_s, self._coded = timeout_s, code_s, coded
        self._restores = self._looks = 0
        self._strangers: list[Buffers] = []  # of trainers that are no ranks now
        self._since = 0  # snapshots that this rank took since it read theirs

    def reach(self, count: Callable[[], int] = lambda: 0) -> None:
        """Attaches to the keeper, which has the others' help where it has nothing. `count`: bytes, about, of
        what it would be; 0: unknown. Raises NoSnapshotError."""
        self._buffers.attach(start=self._coded)
        if self._coded and not self._buffers.kept:
            self._buffers.fetch(self._code_s, count())

    def is_older_than(self, durable: int | None) -> bool:
        """Whether the newest step that all ranks hold is; the same on all of them. Those that have no
        snapshot, or no checkpoint, had no part in it."""
        fault = self._reached()
        failed = "" if fault is None or isinstance(fault, NoSnapshotError) else in_words(fault)
        mine = {"steps": [one.step for one in self._buffers.kept], "durable": durable, "failed": failed}
        self._looks += 1
        said = self._coordination.exchange(f"older/{self._looks}", json.dumps(mine).encode(), self._timeout_s)
        told = [json.loads(words) for words in said]
        if fault is not None and failed:
            raise fault
        for rank, one in enumerate(told):
            if one["failed"]:
                raise SnapshotError(f"rank {rank}: {one['failed']}")
        held = [set(one["steps"]) for one in told if one["steps"]]
        newest = max(set.intersection(*held), default=None) if held else None
        on_disk = min((one["durable"] for one in told if one["durable"] is not None), default=None)
        return newest is not None and on_disk is not None and bool(newest < on_disk)

    def into(
        self, state: TrainState, step: int | str, fit: Fit, count: Callable[[], int] = lambda: 0
    ) -> LoadInfo:
        """`count`: as reach() has it. Raises NoSnapshotError, StateError, and on the rank where it happened
        what else there was: the others hear of it at once."""
        fault = self._reached(count)
        if fault is not None and self._coordination.world.size == 1:
            raise fault
        one = self._restore("" if fault is None else in_words(fault))
        try:
            info = self._read(one, state, step, fit)
        except NoSnapshotError as error:
            if fault is not None and not isinstance(fault, NoSnapshotError):
                raise fault from error
            if not (self._coded and one.skipped):
                raise
            return self._from_others(state, step, fit, error)
        return self._from_others(state, step, fit, info) if self._coded and one.skipped else info

    def _reached(self, count: Callable[[], int] = lambda: 0) -> Exception | None:
        """Why not."""
        try:
            self.reach(count)
        except (PcclError, OSError) as error:
            return error
        return None

    def _restore(self, why: str) -> Restore:
        self._restores += 1
        return Restore(
            self._buffers,
            self._coordination,
            self._restores,
            self._timeout_s,
            self._code_s,
            self._connect,
            why,
        )

    def _read(self, one: Restore, state: TrainState, step: int | str, fit: Fit) -> LoadInfo:
        try:
            return one.into(state, step, fit)
        finally:
            self._strangers += one.opened
            self._since = 0

    def _from_others(
        self, state: TrainState, step: int | str, fit: Fit, found: LoadInfo | NoSnapshotError
    ) -> LoadInfo:
        """What is damaged here counts as lost, and other keepers bring it back; else it stays at `found`."""
        why = ""
        try:
            self._buffers.replace_damaged(self._code_s)
        except (PcclError, OSError) as error:
            why = in_words(error)
        try:
            return self._read(self._restore(why), state, step, fit)
        except NoSnapshotError:
            if isinstance(found, LoadInfo):
                return found
            raise

    def taken(self) -> None:
        """A new snapshot is complete here. After the second one all ranks have their first, since each waits
        for it before its next: what was of other ranks is of no use then."""
        self._since += 1
        if self._since > 1:
            self.close_strangers(free=True)

    def close_strangers(self, *, free: bool) -> None:
        while self._strangers:
            self._strangers.pop().close(free=free)
