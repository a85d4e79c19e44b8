"""The engine of the family, as its users see it. Its classes are settings of it.

It owns the outer state and the hook on the inner optimizer; everything runs in the thread that trains.
"""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import torch

from ..errors import Evicted, OutcomeUnknown, UsageError
from ..parallel.mean_metric import mean_metric
from . import claims, options
from .membership import Membership
from .stats import Window
from .track import Track
from .windows import Stage

logger = logging.getLogger("pccl_py.optim")

# What state_dict() has beside the outer state, all this peer's own.
_PRIVATE = ("position", "steps", "weight_seen", "through", "window_tokens", "tracks", "residuals", "middle")


class Engine(Membership):
    """What all classes of the family can do; see DiLoCo for the life of a peer in it."""

    # ---- use -----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Takes the shared state, and from then on closes windows by itself."""
        if self._stage not in (Stage.TRAINING, Stage.FLYING):
            self.sync()
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops closing windows. An unfinished one stays in the model of this peer only: see finalize()."""
        self._entered = False

    def close(self) -> None:
        """Takes the hook off the inner optimizer, which another one may then have, like the model. A
        reduction under way is cancelled; the others repeat it once this peer has left the run."""
        self._entered = False
        self._flight = None
        self._hook.remove()
        claims.release(self._inner, self._outer.model.parameters, self)

    def sync(self) -> Window | None:
        """Does what is next: the end of a window with its reduction, outer step and admission of newcomers;
        where an average travels while the peer trains, its departure or its application, by turns.

        Returns the last window that was applied, or None where this peer took the shared state instead (in
        the first call, and when it was evicted and has joined again) and where a delta has only left.
        Raises what the communicator raises; call it again to go on.
        """
        while True:
            try:
                try:
                    return self._advance()
                finally:
                    self._pace.begin()
            except (Evicted, OutcomeUnknown) as error:
                logger.warning("%s; joining again at the next boundary", error)
                self._stage = Stage.OUTSIDE
                self._forget_window()
                self._comm.rejoin()
                self.stats.rejoins += 1

    def finalize(self) -> None:
        """The end of training, on all peers: reduces what is left, and returns when every peer is through.

        The last window may be shorter, and peers may have taken different numbers of steps: who is through
        takes part in the windows of the others without weight. Averages under way are applied. All leave
        with the bits of the same outer parameters in their models. A shorter window weighs as much as a full
        one. Costs one reduction per fragment at least. Raises what sync() raises; call it again to go on.
        """
        if self._stage is Stage.OUTSIDE and not self._was_member:
            raise UsageError("finalize() before the first sync(): nothing was trained together")
        self._finalizing = True
        try:
            while self._through < len(self._tracks) or self._stage is not Stage.TRAINING:
                self.sync()
        finally:
            self._finalizing = False
        self._outer.store_to_model()

    def stand_by(self, peers: int) -> bool:
        """A hot spare: takes part in all windows without weight, and so holds the shared state, until fewer
        than `peers` have trained in one. Returns True then: train, like the others. False: they are through.
        """
        wanted = options.count(peers, "peers", 1)
        if self._stage is Stage.OUTSIDE:
            self.sync()
        self._finalizing = True
        try:
            while self._through < len(self._tracks) or self._stage is not Stage.TRAINING:
                self.sync()
                if self._stage is Stage.TRAINING and self._trained < wanted and not self._through:
                    return True
        finally:
            self._finalizing = False
        self._outer.store_to_model()
        return False

    def leave_on(self, number: int = signal.SIGTERM, *, finish: bool = True) -> None:
        """From the main thread: that signal, which a preempted machine gets, makes `should_leave` true at the
        end of the window, or at once with finish=False. The signal's former handler is called, too, if it is
        a function. Then leave the communicator: the others go on at once."""
        former = signal.getsignal(number)

        def asked(signum: int, frame: Any) -> None:
            self.ask_to_leave(finish=finish)
            if callable(former):
                former(signum, frame)

        signal.signal(number, asked)

    def ask_to_leave(self, *, finish: bool = True) -> None:
        """What leave_on()'s signal does. Where this is known before the window ends, and averages do not
        overlap, a peer that stays gets what quantization has held back of this one's deltas."""
        self._leave_asked = "finish" if finish else "drop"

    @property
    def should_leave(self) -> bool:
        """Whether it is time to go: see leave_on()."""
        return self._leave_asked == "drop" or (self._leave_asked is not None and self._steps == 0)

    def drop_window(self) -> None:
        """Takes the model back to the outer parameters; what was trained since is gone. After a
        NonFiniteError that names this peer, for example. An average under way is not touched."""
        self._outer.store_to_model()
        self._restart()

    def drain(self) -> None:
        """Waits for the average under way, which is then part of the shared state and its digest."""
        if self._flight is not None and self._stage in (Stage.TRAINING, Stage.FLYING):
            self._arrive()

    def add_tokens(self, tokens: int) -> None:
        """Counts what this peer trains on, before inner.step(). A commit adds all peers' to `tokens`."""
        self._tokens += options.count(tokens, "tokens", 0)
        for track in self._tracks:
            track.tokens += tokens

    def share(self) -> list[int]:
        """Of `sampler`: indices of the samples for this peer's next inner step. Empty where the window has
        none left for it: it has just come in while averages travel, or there are more peers than samples.
        Take the step all the same, without gradients; it has no weight.

        What a window has used is committed with its average: a dead peer's samples, and those of a dropped or
        unfinished window, are the first of a later one. A peer that trains the window again has the same.
        """
        if self._samples is None:
            raise UsageError("share() without a sampler: pass sampler=pccl_py.parallel.ElasticSampler(...)")
        if self._stage is Stage.OUTSIDE:
            raise UsageError("share() before the first sync(), which says who has which samples")
        window = self._window_in_training
        steps = self._schedule.interval(window)
        return self._samples.of_step(self._peer, window, self._steps, steps)

    def mean(self, value: float, weight: float = 1.0) -> float:
        """mean_metric() of pccl_py.parallel, as of the window's loss, weighted by its samples or tokens: the
        same bits on all peers. Call it wherever `windows` has changed, and once before the first step (with
        weight 0: a newcomer has no window yet, and the others are behind one). Where the run has gone on
        without this peer, its own value; the end of its window joins again.
        """
        try:
            return mean_metric(self._comm, value, weight)
        except (Evicted, OutcomeUnknown) as error:
            logger.warning("%s; a mean of this peer alone", error)
            return float(value)

    # ---- what there is to see ------------------------------------------------------------------------------

    @property
    def pending_steps(self) -> int:
        """Inner steps of this peer since its last delta left; 0 right after a window."""
        return self._steps

    @property
    def windows(self) -> int:
        """Averages that the run has applied; the same on every peer, like the next three. With fragments,
        each of them counts."""
        return self._outer.windows

    @property
    def outer_step(self) -> int:
        """Outer steps that the run has applied."""
        return self._outer.outer_step

    @property
    def inner_step(self) -> int:
        """Inner steps of one peer since the run began, up to the last commit: for learning rate schedules."""
        return self._outer.inner_step

    @property
    def tokens(self) -> int:
        """Tokens of all peers up to the last commit, as far as add_tokens() was told."""
        return self._outer.tokens

    @property
    def outer_optimizer(self) -> torch.optim.Optimizer:
        """The torch optimizer on the outer parameters. Change its learning rates on all peers alike."""
        return self._outer.optimizer.torch

    def outer_parameters(self) -> dict[str, torch.Tensor]:
        """Copies of the outer parameters by name, float32."""
        found = self._outer.state_dict()["parameters"]
        assert isinstance(found, dict)
        return found

    def state_digest(self) -> str:
        """32 hexadecimal digits over everything that is shared; equal on all peers after each window. An
        average under way is in it from drain() to its application."""
        return self._outer.digest()

    # ---- checkpoint ----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that is not in the model and the inner optimizer, at any moment between two inner steps. Waits
        for an average under way."""
        self.drain()
        if self._stage in (Stage.APPLYING, Stage.DEPARTING):
            raise UsageError(f"state_dict() of a peer that {self._stage.value}: sync() first")
        private = {
            "position": self._position,
            "steps": self._steps,
            "weight_seen": self._weight_seen,
            "through": self._through,
            "window_tokens": self._tokens,
            "tracks": [track.state() for track in self._tracks],
            "residuals": None if self._feedback is None else self._feedback.state_dict(),
            "middle": bool(self._steps or self._outer.has_pending or any(t.steps for t in self._tracks)),
        }
        if self._settings.sampler is not None:
            private["samples"] = self._settings.sampler.state_dict()
        return {"kind": self._settings.kind, **self._outer.state_dict(), **private}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Before the first sync(). For the middle of a window, load the model and the inner optimizer too.

        Where peers load different states, the one with the most windows wins and the others start from it.
        """
        if self._stage is not Stage.OUTSIDE:
            raise UsageError("load_state_dict() after the first sync(): load before it, or peers differ")
        if not isinstance(saved, Mapping):
            raise UsageError(f"load_state_dict() of a {type(saved).__name__}: pass what state_dict() gave")
        if saved.get("kind") != self._settings.kind:
            raise UsageError(f"the saved state is of {saved.get('kind')!r}, not of {self._settings.kind!r}")
        sampler = self._settings.sampler
        self._outer.check_saved(saved, _PRIVATE if sampler is None else (*_PRIVATE, "samples"))
        if sampler is not None:
            sampler.load_state_dict(saved["samples"])
        self._outer.load_state_dict(saved)
        self._position = int(saved["position"])
        self._steps = self._loaded_steps = int(saved["steps"])
        self._weight_seen = float(saved["weight_seen"])
        self._through = int(saved["through"])
        self._tokens = int(saved["window_tokens"])
        self._tracks = [Track.restored(track) for track in saved["tracks"]]
        self._loaded = bool(saved["middle"])
        if self._feedback is not None:
            self._feedback.load_state_dict(saved["residuals"] or {})
        self._was_member = True

    def __repr__(self) -> str:
        size = self._outer.parameters.numel()
        text = f"of {size} parameters: {self._stage.value}, {self._outer.windows} windows"
        return f"<{self._settings.kind} {text}>"

    def _on_step(self) -> None:
        self._steps += 1
        self._position += 1
        self._through = 0
        for track in self._tracks:
            track.steps += 1
        self._pace.step()
        if self._flight is not None:
            self._staleness += 1
        if self._position < self._next_event() and not self._called_in():
            return
        if self._entered:
            self.sync()
        elif self._stage is Stage.OUTSIDE and not self._warned:
            self._warned = True
            kind = self._settings.kind
            text = f"{self._steps} inner steps and no sync(): use this {kind} in a `with`, or call its sync()"
            warnings.warn(f"{text} before the first step and after each window", stacklevel=3)
