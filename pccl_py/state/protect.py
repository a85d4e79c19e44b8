"""`with protect(state, comm, checkpoints=...) as run:` resumes, then saves after the optimizer's steps."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import torch

from ..errors import PcclError, UsageError
from .last_step import LastStep, of_process_group
from .parts import OptimizerPart, StatefulPart
from .preemption import Preemption
from .resume import PartSource, resume
from .train_state import TrainState

SHOWN_EVERY_S = 1.0
logger = logging.getLogger("pccl_py")


class Run:
    """A protected run. `step`: inner steps since the run began, also before this process did.

    resumed_from   by part: the source, its step and why
    """

    def __init__(
        self, state: TrainState, comm: Any, snapshots: Any, checkpoints: Any, sigterm_s: float | None
    ) -> None:
        self.step = 0
        self.resumed_from: dict[str, PartSource] = {}
        self._state = state.joined(run=_Progress(self))
        self._comm, self._snapshots, self._checkpoints = comm, snapshots, checkpoints
        self._flushed = getattr(snapshots, "flushes", False) and checkpoints is not None
        if self._flushed:
            snapshots.flush_to(checkpoints)
        self._inner = _only_optimizer(state)
        self._shown_at = 0.0
        self._durable: tuple[int | None, float] = (None, 0.0)  # step, and when it was seen first
        self._open = ExitStack()
        self._preemption = Preemption(sigterm_s)
        self._last_step = LastStep()
        self._ended_at = -1  # the step of the last snapshot before the end

    def __enter__(self) -> Self:
        self.resumed_from = resume(self._state, *self._sources())
        del self.resumed_from["run"]
        self._enter_outer()
        for saver in self._steppers():
            saver.prepare(self._state)
        # After the outer optimizer's hook: the outer step comes first, then what is saved has it.
        hook = self._inner.register_step_post_hook(self._after_step)
        self._open.callback(hook.remove)
        self._last_step = of_process_group()
        self._preemption.begin()
        return self

    def _sources(self) -> list[Any]:
        """Memory first, unless what is on the disk is of a later step: that of a lost host, which the others
        bring back, may be of any."""
        if self._snapshots is None or self._checkpoints is None:
            return [self._snapshots, self._checkpoints]
        if self._snapshots.is_older_than(self._checkpoints.latest()):
            return [self._checkpoints, self._snapshots]
        return [self._snapshots, self._checkpoints]

    def _steppers(self) -> list[Any]:
        """Who takes something by itself: not a Checkpointer that snapshots are flushed to."""
        both = [self._snapshots, None if self._flushed else self._checkpoints]
        return [saver for saver in both if saver is not None]

    def _enter_outer(self) -> None:
        """The shared state of live peers wins over a checkpoint's where it is further."""
        outer = self._state.parts.get("outer")
        if not isinstance(outer, StatefulPart) or not hasattr(outer.held, "__enter__"):
            return
        before = self._position(outer.held)
        self._open.enter_context(outer.held)
        now = self._position(outer.held)
        if now == before:
            return
        for name in ("outer", "model"):
            if name in self._state.parts:
                self._from_peers(name, before, now)
        for name, told in self.resumed_from.items():
            if name not in ("outer", "model") and told.source in ("checkpoint", "snapshot"):
                why = (
                    f"{told.why}; the newest that this peer has before outer step {now[0]} of the live peers"
                )
                self.resumed_from[name] = replace(told, why=why)
        self.step = max(self.step, now[1])  # the position of the run, which went on without this peer

    def _from_peers(self, name: str, before: tuple[int, int], now: tuple[int, int]) -> None:
        had = (
            "the program's own start"
            if self.resumed_from[name].source == "program"
            else f"outer step {before[0]}"
        )
        self.resumed_from[name] = PartSource(
            "live peers", now[1], f"live peers are at outer step {now[0]}, {had} was here"
        )

    @staticmethod
    def _position(outer: Any) -> tuple[int, int]:
        """Outer steps, and inner steps that each peer took for them."""
        return int(getattr(outer, "outer_step", 0)), int(getattr(outer, "inner_step", 0))

    def _after_step(self, *_: Any) -> None:
        self.step += 1
        if self._last_step.reached(self.step, self._preemption.waits):
            self._take_last()
            self._preemption.pass_on()
            return
        for saver in self._steppers():
            saver.step(self.step, self._state)
        if hasattr(self._comm, "show") and time.monotonic() - self._shown_at >= SHOWN_EVERY_S:
            self._shown_at = time.monotonic()
            with suppress(PcclError):  # the run's own calls tell what is wrong with it
                self._comm.show(**self._figures())

    def _take_last(self) -> None:
        """Told to end: into memory and to the others first, which is quicker, then to the disk."""
        if self._ended_at == self.step:
            return
        self._ended_at = self.step
        for saver in (self._snapshots, self._checkpoints):
            if saver is not None:
                try:
                    saver.last(self.step, self._state, self._preemption.left_s)
                except PcclError as error:
                    logger.warning("told to end at step %d: %s", self.step, error)

    def _figures(self) -> dict[str, float]:
        """For the master's dashboard: how far, and how safe, this peer is."""
        found: dict[str, float] = {"step": self.step}
        if self._snapshots is not None and (taken := self._snapshots.status()).step is not None:
            found |= {"snapshot_step": taken.step, "snapshot_at": time.time() - (taken.age_s or 0.0)}
            found["losses_survivable"] = taken.losses
        if self._checkpoints is not None and (last := self._checkpoints.stats.last) is not None:
            if self._durable[0] != last.step:
                self._durable = (last.step, time.time())
            found |= {"checkpoint_step": last.step, "checkpoint_at": self._durable[1]}
        return found

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Steps are no longer watched; what is on its way to the disk is waited for."""
        told_to_end = self._preemption.asked
        if told_to_end and error is None:
            self._take_last()
        try:
            self._open.__exit__(kind, error, trace)
        finally:
            try:
                if self._checkpoints is not None:
                    self._checkpoints.__exit__(kind, error, trace)
            finally:
                self._leave_snapshots(kind, error, trace, told_to_end)

    def _leave_snapshots(self, kind: Any, error: Any, trace: Any, told_to_end: bool) -> None:
        """Last: their memory is freed where the run is over. Who is told to end leaves it to a successor."""
        try:
            if self._snapshots is not None and told_to_end and error is None:
                self._snapshots.close()
            elif self._snapshots is not None:
                self._snapshots.__exit__(kind, error, trace)
        finally:
            self._preemption.end()
            self._preemption.pass_on()


class _Progress:
    """The position of the run, as a part of its state."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def state_dict(self) -> dict[str, int]:
        return {"step": self._run.step}

    def load_state_dict(self, saved: dict[str, int]) -> None:
        self._run.step = int(saved["step"])


def _only_optimizer(state: TrainState) -> torch.optim.Optimizer:
    inner = state.parts.get("inner")
    if isinstance(inner, OptimizerPart):
        return inner.optimizer
    found = state.optimizers()
    if len(found) != 1:
        raise UsageError(f"a state with {len(found)} optimizers: call the one whose steps count `inner`")
    return found[0]


def protect(
    state: TrainState,
    comm: Any = None,
    *,
    snapshots: Any = None,
    checkpoints: Any = None,
    sigterm_s: float | None = 20.0,
) -> Run:
    """Keeps a training state safe: resumes on entry, saves on the way, leaves politely.

    state         a TrainState with an optimizer `inner`, after whose step() everything happens; an outer
                  optimizer `outer` is entered, so that its windows close by themselves
    comm          the Communicator of the run, if there is one
    snapshots     Snapshots with `every=`; their memory is freed at the end of the run, and left to a
                  successor where an error ends it
    checkpoints   a Checkpointer with `every=`, or without, where snapshots have `flush_every=` and it writes
                  those; closed at the end
    sigterm_s     after SIGTERM, which preempted machines get some seconds before their end, the next step()
                  takes a last snapshot, waits until it is coded, saves a last checkpoint, then lets the
                  handler before have its turn: without one, SystemExit(143). All ranks of torch's process
                  group end at one step. Where no step ends within so many seconds, or at a second SIGTERM,
                  it has its turn at once. None: signals are left alone; so they are off the main thread

        with pccl.protect(state, checkpoints=pccl.Checkpointer("/nvme/run7", every=200)) as run:
            print(run.resumed_from)
    """
    return Run(state, comm, snapshots, checkpoints, sigterm_s)
