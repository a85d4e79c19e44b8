"""A peer of the churn: rounds of an agreed number, each with several all-reduces in flight, all of them
checked.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pccl_py as pccl

from .peer import Peer, Seat
from .records import Writer
from .state import CheckedState
from .trial import Trial
from .windows import Limits, OperationPlan, plan_window


@dataclass(frozen=True)
class ChurnOptions:
    """`own`: seeds what only this peer decides. `extra`: it is one of many that come at once. `sabotage`:
    what this peer does wrong on purpose, one of SABOTAGE, so that tests see it detected."""

    seed: int
    own: str
    limits: Limits
    sabotage: str | None = None
    extra: bool = False


SABOTAGE = {
    "wrong": "contributes other values than it should",
    "death": "ends with an exception",
    "hang": "stops to take part",
    "state": "has other bits in the shared state than were elected",
    "leak": "keeps a descriptor, a thread and a MiB of each round",
    "ghost": "does not come back after an eviction",
    "door": "never gets in where many come at once",
    "clock": "pauses where its wall clock jumps",
    "dark": "stays cut off for good (the network's doing)",
    "late": "a killed master is started again far too late (its supervisor's doing)",
    "lie": "says that a checkpoint is durable before it is (the saver's doing)",
    "drift": "a trainer's outer state has other bits than the others' (a trainer's doing)",
    "stale": "a trainer goes on from other bits than were saved (a trainer's doing)",
    "orphan": "a trainer ends without freeing its keeper (a trainer's doing)",
    "silent": "says nothing of a save that failed (the saver's doing)",
}
OF_ALL = {"ghost", "door", "clock"}  # every peer does it; of the others that peers do, the second one


# Between two boundaries that were not skipped.
WINDOWS_MAX = 1 << 16


class ChurnPeer(Peer):
    def __init__(self, seat: Seat, out: Writer, options: ChurnOptions) -> None:
        super().__init__(seat, out)
        self._options = options
        self._window = self._since = 0
        self._boundaries = -1
        self._rounds = 0
        self._draw = random.Random(options.own)
        self._state = CheckedState(options.seed)
        self._kept: list[object] = []
        self._clock = time.time() - time.monotonic()

    def round(self) -> None:
        self.boundary()
        self._window = self._next_window()
        self._rounds += 1
        self._commit_sabotage()
        if self._since == 0:
            self._sync()
        plan = plan_window(self._options.seed, self._window, self._options.limits)
        if self._draw.random() < 0.1:
            time.sleep(self._draw.random() * 0.02)  # a slow starter is no error
        self.out.say("start", window=self._window)
        pending, retry = list(plan.operations), 0
        while pending:
            pending = self._reduce_all(pending, plan.style, retry)
            retry += 1
        if plan.barrier:
            self.comm.barrier(scope="run")
        self._state.advance()

    def _sync(self) -> None:
        """All members do that after each boundary that was not skipped: some may be new."""
        info, faults = self._state.synchronize(self.comm, spoil=self._options.sabotage == "state")
        key = [self._window, -1, "group", 0]
        for fault in faults:
            self._wrong(key, fault)
        self.out.say(
            "synced",
            key=key,
            contributors=list(info.contributors),
            digest=self._state.digest(),
            attempts=info.attempts,
            before=self._state.before,
            revision=info.revision,
        )

    def evicted(self) -> None:
        self._state.lost()
        self.out.say("kept", revision=self._state.revision)
        if self._options.sabotage == "ghost":
            time.sleep(3600)

    def _connect(self) -> None:
        if self._options.sabotage == "door" and self._options.extra:
            time.sleep(3600)
        super()._connect()

    def _next_window(self) -> int:
        """A number that all members know, newcomers too: the run counts the boundaries that they have
        reached together, and between two of these (the others were skipped) all have gone through the same
        windows.
        """
        boundaries: int = self.comm.boundaries
        self._since = self._since + 1 if boundaries == self._boundaries else 0
        self._boundaries = boundaries
        return boundaries * WINDOWS_MAX + self._since

    def _reduce_all(self, plans: list[OperationPlan], style: str, retry: int) -> list[OperationPlan]:
        """Returns those that a loss has ended, to be called again."""
        me = self.comm.id
        wrong = self._options.sabotage == "wrong" and self._rounds > 5
        trials = [
            Trial(plan, self._window, me, retry, sabotage=wrong, shared=self._in_shared_memory())
            for plan in plans
        ]
        if style == "tagged":
            self._draw.shuffle(trials)
        errors: list[pccl.PcclError] = []
        again: list[OperationPlan] = []
        if style == "threads" and len(trials) > 1:
            halves = [trials[::2], trials[1::2]]
            threads = [
                threading.Thread(target=self._reduce, args=(half, True, again, errors)) for half in halves
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        else:
            self._reduce(trials, style != "numbered", again, errors)
        if errors:
            expected = (pccl.Evicted, pccl.OutcomeUnknown)
            raise min(errors, key=lambda error: isinstance(error, expected))  # surprises first
        return sorted(again, key=lambda plan: plan.slot)

    def _in_shared_memory(self) -> bool:
        """Half of the operations of whoever can show such memory to others."""
        return self.seat.transport in ("auto", "shm") and self._draw.random() < 0.5

    def _reduce(
        self,
        trials: list[Trial],
        tagged: bool,
        again: list[OperationPlan],
        errors: list[pccl.PcclError],
    ) -> None:
        started: list[tuple[Trial, pccl.Work]] = []
        for trial in trials:
            try:
                started.append((trial, trial.post(self.comm, trial.plan.slot if tagged else None)))
            except pccl.PcclError as error:
                errors.append(error)
        if self.leaving and self._draw.random() < 0.5:
            self.comm.leave()  # with operations in flight
        self._draw.shuffle(started)
        for trial, work in started:
            try:
                info = work.wait()
            except pccl.PcclError as error:
                self._failed(trial, error, again, errors)
            else:
                for fault in trial.faults_of_result(info):
                    self._wrong(trial.key, f"{fault}; {info}")
                self._committed(trial.key, info, trial.digest())

    def _failed(
        self, trial: Trial, error: pccl.PcclError, again: list[OperationPlan], errors: list[pccl.PcclError]
    ) -> None:
        self.out.say("failed", key=trial.key, error=f"{type(error).__name__}: {error}"[:600])
        for fault in trial.faults_of_failure():
            self._wrong(trial.key, f"{fault}; after {type(error).__name__}: {error}")
        if isinstance(error, pccl.PeerLost) and trial.plan.raise_on_loss:
            again.append(trial.plan)
        elif not (isinstance(error, pccl.ClosedError) and self.leaving):
            errors.append(error)

    def _committed(self, key: Sequence[int | str], info: pccl.OpInfo | pccl.Work, digest: int) -> None:
        assert isinstance(info, pccl.OpInfo)
        contributors = list(info.contributors)
        self.out.say(
            "commit", key=list(key), contributors=contributors, digest=digest, attempts=info.attempts
        )

    def _wrong(self, key: Sequence[int | str], text: str) -> None:
        self.out.say("wrong", key=list(key), text=text[:3000])

    def _commit_sabotage(self) -> None:
        sabotage = self._options.sabotage
        if self._rounds < 5 or sabotage is None:
            return
        if sabotage == "death":
            raise RuntimeError("sabotage: this peer dies")
        if sabotage == "hang":
            time.sleep(3600)
        if sabotage == "clock" and abs(self._clock - (now := time.time() - time.monotonic())) > 1:
            self._clock = now
            time.sleep(6)
        if sabotage == "leak" and self._rounds % 10 == 0:
            self._keep_things()

    def _keep_things(self) -> None:
        self._kept.append(os.dup(0))
        self._kept.append(bytearray(os.urandom(1 << 10) * (1 << 10)))
        if len(self._kept) < 200:
            thread = threading.Thread(target=time.sleep, args=(3600,), daemon=True)
            thread.start()
            self._kept.append(thread)
