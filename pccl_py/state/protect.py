"""`with protect(state, comm, checkpoints=...) as run:` resumes, then saves after the optimizer's steps."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import torch

from ..errors import NotBuilt, UsageError
from .parts import OptimizerPart, StatefulPart
from .resume import PartSource, resume
from .train_state import TrainState


class Run:
    """A protected run. `step`: inner steps since the run began, also before this process did.

    resumed_from   by part: the source, its step and why
    """

    def __init__(self, state: TrainState, comm: Any, checkpoints: Any) -> None:
        self.step = 0
        self.resumed_from: dict[str, PartSource] = {}
        self._state = state.joined(run=_Progress(self))
        self._comm, self._checkpoints = comm, checkpoints
        self._inner = _only_optimizer(state)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self.resumed_from = resume(self._state, self._checkpoints)
        del self.resumed_from["run"]
        self._enter_outer()
        if self._checkpoints is not None:
            self._checkpoints.prepare(self._state)
        # After the outer optimizer's hook: the outer step comes first, then what is saved has it.
        hook = self._inner.register_step_post_hook(self._after_step)
        self._open.callback(hook.remove)
        return self

    def _enter_outer(self) -> None:
        """The shared state of live peers wins over a checkpoint's where it is further."""
        outer = self._state.parts.get("outer")
        if not isinstance(outer, StatefulPart) or not hasattr(outer.held, "__enter__"):
            return
        before = getattr(outer.held, "outer_step", None)
        self._open.enter_context(outer.held)
        now = getattr(outer.held, "outer_step", None)
        if now != before:
            for name in ("outer", "model"):
                if name in self._state.parts:
                    self.resumed_from[name] = PartSource(
                        "live peers", now, f"they are at outer step {now}, what was loaded at {before}"
                    )

    def _after_step(self, *_: Any) -> None:
        self.step += 1
        if self._checkpoints is not None:
            self._checkpoints.step(self.step, self._state)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Steps are no longer watched; what is on its way to the disk is waited for."""
        try:
            self._open.__exit__(kind, error, trace)
        finally:
            if self._checkpoints is not None:
                self._checkpoints.__exit__(kind, error, trace)


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


def protect(state: TrainState, comm: Any = None, *, snapshots: Any = None, checkpoints: Any = None) -> Run:
    """Keeps a training state safe: resumes on entry, saves on the way, leaves politely.

    state         a TrainState with an optimizer `inner`, after whose step() everything happens; an outer
                  optimizer `outer` is entered, so that its windows close by themselves
    comm          the Communicator of the run, if there is one
    checkpoints   a Checkpointer with `every=`; closed at the end

        with pccl.protect(state, checkpoints=pccl.Checkpointer("/nvme/run7", every=200)) as run:
            print(run.resumed_from)
    """
    if snapshots is not None:
        raise NotBuilt("snapshots= waits for in-memory snapshots; pass checkpoints=")
    return Run(state, comm, checkpoints)
