"""A trainer's two buffers: attached, mapped, and kept through the death of a keeper.

`attach`, `prepare` and `complete` may take their time: they are for the thread behind the training. A keeper
that dies takes nothing with it: this side holds both buffers, and hands the newest snapshot to the next one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

from ..errors import DamagedError, NoSnapshotError, ProtocolError, UsageError
from . import memory, messages, native
from .keeper_client import Keeper, KeeperLost, Kept
from .messages import SLOTS
from .rooms import least_parities
from .verified import Verified

logger = logging.getLogger("pccl_py")

TRIES = 3  # to attach to keepers that die at once
LOOK_S = 0.2  # for an answer, where nothing was ever coded
TURN_S = 5.0  # of a wait for the keeper, which may take several


class Buffers:
    """`keeper`: its name; `protect`: how it joins the run, None: it stays by itself. `code_s`: so long
    it waits for what an earlier trainer left to be coded, before anything is written beside it. `keepers`:
    that there may be in the run now."""

    def __init__(
        self,
        run: str,
        trainer: str,
        keeper: str,
        orphan_s: float,
        timeout_s: float,
        protect: messages.Protect | None = None,
        code_s: float = 60.0,
        keepers: Callable[[], int] = lambda: 1,
    ) -> None:
        self._protect, self._code_s, self._keepers = protect, code_s, keepers
        self.coded: messages.Coded | None = None  # as the keeper last said
        self.run, self.trainer = run, trainer
        self.name, self._orphan_s, self._timeout_s = keeper, orphan_s, timeout_s
        self.keeper: Keeper | None = None
        self._pools: list[native.StagingPool | None] = [None] * SLOTS

    def beside(self, trainer: str) -> Buffers:
        """Another trainer's, at the same keeper."""
        return Buffers(
            self.run,
            trainer,
            self.name,
            self._orphan_s,
            self._timeout_s,
            self._protect,
            self._code_s,
            self._keepers,
        )

    @property
    def protected(self) -> bool:
        """Whether others could bring back what is lost here."""
        return self._protect is not None

    @property
    def kept(self) -> list[Kept]:
        """Complete snapshots, newest first."""
        return [] if self.keeper is None else list(self.keeper.kept)

    @property
    def newest_step(self) -> int:
        return max((kept.step for kept in self.kept), default=-1)

    @property
    def memory_bytes(self) -> int:
        return 0 if self.keeper is None else sum(self.keeper.capacities)

    @property
    def parity_bytes(self) -> int:
        """Of others' parities, beside this trainer's buffers."""
        return 0 if self.coded is None else self.coded.parities

    def attach(self, count: int = 0, *, start: bool = True) -> None:
        if self.keeper is None:
            self.keeper = self._attached(count, None, start)

    def _attached(self, count: int, handed: Kept | None, start: bool = True) -> Keeper:
        """To one that does not die meanwhile."""
        for _ in range(TRIES - 1):
            with suppress(KeeperLost):
                return self._attached_once(count, handed, start)
        return self._attached_once(count, handed, start)

    def _attached_once(self, count: int, handed: Kept | None, start: bool) -> Keeper:
        keeper = Keeper.attach(
            self.run,
            self.trainer,
            keeper=self.name,
            bytes=count,
            parities=least_parities(count, self._protect.parity, self._keepers()) if self._protect else 0,
            orphan_s=self._orphan_s,
            timeout_s=self._timeout_s,
            handed=handed,
            start=start,
        )
        try:
            if self._protect is not None:
                keeper.protect(self._protect)
        except BaseException:
            keeper.close()
            raise
        return keeper

    def spare(self, count: int) -> tuple[Keeper, int, native.StagingPool] | None:
        """Where the next snapshot of so many bytes goes. None: prepare first."""
        keeper = self.keeper
        if keeper is None:
            return None
        slot = self._free_slot(keeper)
        pool = self._pools[slot]
        if pool is None or pool.bytes < count:
            return None
        return keeper, slot, pool

    @property
    def spare_fd(self) -> int:
        """Of the buffer that the next snapshot is written to; -1: there is none yet."""
        return -1 if self.keeper is None else self.keeper.buffers[self._free_slot(self.keeper)]

    @staticmethod
    def _free_slot(keeper: Keeper) -> int:
        """By what this side knows, too: its keeper may have died with the newest word."""
        return 1 - keeper.kept[0].slot if keeper.kept else keeper.free_slot

    def prepare(self, count: int) -> None:
        """Both buffers, or where one is the newest snapshot's, the other one. Raises SnapshotError."""
        self.attach(count)
        if self._protect is not None and self.kept and not any(self._pools):
            self.await_coded(self.kept[0].step, self._code_s)
        for again in (True, False):
            try:
                self._prepare(count)
                return
            except KeeperLost:
                if not again:
                    raise
                self.reattach(count)

    def _prepare(self, count: int) -> None:
        keeper = self.keeper
        assert keeper is not None
        first = self._free_slot(keeper)
        for slot in (first, 1 - first):
            if slot != first and keeper.kept and keeper.kept[0].slot == slot:
                continue
            if keeper.capacities[slot] < count or keeper.buffers[slot] < 0:
                self._unmap(slot)
                keeper.reserve(slot, memory.whole_units(count))
            self._map(keeper, slot)

    def _map(self, keeper: Keeper, slot: int) -> None:
        if self._pools[slot] is None:
            self._pools[slot] = native.StagingPool(
                keeper.capacities[slot],
                fd=keeper.buffers[slot],
                in_place=True,
                slab_bytes=memory.slab_bytes(keeper.capacities[slot]),
            )

    def _unmap(self, slot: int) -> None:
        pool, self._pools[slot] = self._pools[slot], None
        if pool is not None:
            with suppress(UsageError):  # a capture that was given up still reads: it goes with that one
                pool.close()

    def reattach(self, count: int = 0) -> None:
        """To the keeper that follows one that died, which gets the newest snapshot from here."""
        before = self.keeper
        if before is None:
            self.attach(count)
            return
        handed = before.kept[0] if before.kept else None
        after = self._attached(0, handed)
        pool = None if handed is None else self._pools[handed.slot]
        for slot in range(SLOTS):
            if handed is None or slot != handed.slot:
                self._unmap(slot)
        self._pools = [None] * SLOTS
        if handed is not None and after.kept and after.kept[0].step == handed.step:
            self._pools[after.kept[0].slot] = pool
        self.keeper = after
        before.close()
        logger.warning(
            "the keeper of run %r was gone; another one has %s",
            self.run,
            f"step {after.kept[0].step} now" if after.kept else "no snapshot yet",
        )

    def complete(self, slot: int, step: int, count: int, table: bytes) -> None:
        """The capture in `slot` is the newest snapshot."""
        assert self.keeper is not None
        try:
            self.keeper.complete(slot, step, count, table)
        except KeeperLost:
            self.reattach()  # with this snapshot

    def await_coded(self, step: int, timeout_s: float) -> str:
        """Until others could bring `step` back. Empty, or why they cannot: then the trainer goes on."""
        until = time.monotonic() + timeout_s
        while self.keeper is not None:
            left = max(until - time.monotonic(), 0.0)
            try:
                self.coded = self.keeper.await_coded(step, min(left, TURN_S))
            except KeeperLost:
                self.reattach()  # the next one gets this snapshot, and has it coded
                continue
            if self.coded.step >= step:
                return ""
            if left == 0:
                return self.coded.fault or f"other keepers did not take part for {timeout_s:g} s"
        return "there is no keeper"

    def look(self) -> None:
        """What is coded and how many losses that survives now. Returns soon."""
        if self._protect is not None and self.keeper is not None and self.kept:
            with suppress(KeeperLost):
                self.coded = self.keeper.await_coded(0, LOOK_S)

    def fetch(self, timeout_s: float, count: int = 0) -> None:
        """What was lost with its keeper is brought here. `count`: its bytes, about, 0: unknown. Raises
        NoSnapshotError."""
        until = time.monotonic() + timeout_s
        assert self.keeper is not None
        while not self._fetched(min(max(until - time.monotonic(), 0.1), TURN_S), count):
            if time.monotonic() > until:
                raise NoSnapshotError(
                    f"for {timeout_s:g} s no other keeper could be asked for what was lost: is the master "
                    "there, and are they? Load the newest checkpoint"
                )

    def _fetched(self, seconds: float, count: int) -> bool:
        """Attached anew with it. A keeper that dies meanwhile is followed by one that is asked, too."""
        assert self.keeper is not None
        try:
            if not self.keeper.fetch(seconds, count):
                return False
        except KeeperLost:
            pass
        keeper, self.keeper = self.keeper, None
        for slot in range(SLOTS):  # what was empty has made room for what comes
            self._unmap(slot)
        keeper.close()
        self.attach()
        return bool(self.kept)

    def replace_damaged(self, timeout_s: float) -> None:
        """A newest snapshot whose bytes are wrong is given up, with all before it, for what other keepers
        bring back. Raises NoSnapshotError."""
        if not self.kept:
            return
        try:
            Verified(self.kept[0]).close()
        except (DamagedError, ProtocolError) as error:
            logger.warning("%s: other keepers are asked for it", error)
            self.forget(-1, again=True)
            self.fetch(timeout_s)

    def forget(self, after: int, *, again: bool = False) -> None:
        """`again`: other keepers may bring back what was newest."""
        self.attach()
        assert self.keeper is not None
        self.keeper.forget(after, again=again)

    def is_lost(self) -> bool:
        return self.keeper is not None and not self.keeper.alive

    def close(self, *, free: bool) -> None:
        keeper, self.keeper = self.keeper, None
        for slot in range(SLOTS):
            self._unmap(slot)
        if keeper is not None:
            keeper.detach(free=free)
