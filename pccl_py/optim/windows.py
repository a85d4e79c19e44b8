"""What happens at the end of a window, in the order in which it happens: the engine's machinery.

Everything runs in the thread that trains.
"""

from __future__ import annotations

import logging
import math
import time
import weakref
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import torch

from ..error_feedback import ErrorFeedback
from ..errors import CollectiveError, NonFiniteError, UsageError
from . import claims, rules
from .islands import Ranks
from .landing import left_out, norm, window_of
from .options import Settings
from .outer_state import Fragment, OuterState
from .outer_step import OuterStep
from .pace import Pace
from .reduction import SLOTS, Comm, Landed, Own, Reduction
from .residual_heirs import ResidualHeirs
from .samples import Samples
from .stats import Stats, Window
from .track import Track

if TYPE_CHECKING:
    from .inner_state import InnerCopy

logger = logging.getLogger("pccl_py.optim")


class Stage(Enum):
    """Where a peer is. An exception leaves it there, and the next sync() goes on from it."""

    OUTSIDE = "has not taken the shared state yet"
    TRAINING = "in a window"
    FLYING = "in a window, with an average under way"
    APPLYING = "between a commit and the end of the outer step"
    BOUNDARY = "window closed, somebody waits at the door"
    ADMITTED = "passed the boundary, has to synchronize"
    DEPARTING = "window closed, its delta has to leave"


class Windows:
    """Windows of one peer: their deltas, averages and outer steps, and the shared state."""

    def __init__(
        self, comm: Comm, model: torch.nn.Module, inner: torch.optim.Optimizer, settings: Settings
    ) -> None:
        if not isinstance(inner, torch.optim.Optimizer):
            raise UsageError(f"inner is a {type(inner).__name__}; pass the torch optimizer of the model")
        self._comm = comm
        self._inner = inner
        self._settings = settings
        self._schedule = settings.schedule
        self._ranks = Ranks(comm)
        self._samples = None if settings.sampler is None else Samples(settings.sampler)
        self._outer = OuterState(
            model,
            settings.outer,
            settings.pin_memory,
            num_fragments=self._schedule.num_fragments,
            device=settings.device,
            settings=settings.described,
            overlaps=settings.how.overlaps,
            pipelined=settings.pipelined,
            own_start=settings.staleness == "eager" or settings.lookahead,
            extra=None if self._samples is None else self._samples.shared,
        )
        self._outer_step = OuterStep(self._outer, settings, self._ranks)
        self._overlaps = settings.how.overlaps
        self._how = settings.how
        self._feedback = ErrorFeedback() if settings.feedback else None
        self._heirs = self._residual_heirs()
        self._inner_copy = self._copier(model) if settings.inner_on_join == "copy" else None
        self._stage = Stage.OUTSIDE
        self._was_member = False  # of this run or, through a loaded state, of an earlier one
        self._mixed = False  # of old and elected content, since a synchronization broke off
        self._tracks = [Track() for _ in self._outer.fragments]
        self._position = 0  # in the schedule: inner steps since a delta left
        self._steps = 0  # of those, the ones that this peer took
        self._tokens = 0
        self._loaded = False  # in the middle of a window, with the model of that moment
        self._loaded_steps = 0
        self._flight: Reduction | None = None
        self._landed: tuple[Landed, Window] | None = None  # behind its commit, before its application
        self._own: Own | None = None
        self._moved = False  # the delta that goes with it is more than zeros
        self._delta_norm = 0.0
        self._staleness = 0  # inner steps since what is under way was taken
        self._weight_seen = 1.0  # of all peers together, as last heard
        self._entered = False
        self._finalizing = False
        self._pace = Pace(settings.pace)
        self._late = False
        self._trained = 0  # peers, as of the last commit
        self._leave_asked: str | None = None
        self._through = 0  # commits in a row in which nobody trained who goes on
        self._warned = False
        self.stats = Stats()
        claims.claim(inner, self)
        self._hook = inner.register_step_post_hook(claims.counting(weakref.ref(self)))

    def _residual_heirs(self) -> ResidualHeirs | None:
        """None also where averages are applied later: who leaves does not wait for that."""
        if self._feedback is None or self._overlaps:
            return None
        return ResidualHeirs(self._comm, self._feedback, self._outer.fragments, self._how.chunk)

    def _copier(self, model: torch.nn.Module) -> InnerCopy:
        from .inner_state import InnerCopy  # and torch.distributed with it

        return InnerCopy(self._comm, self._ranks, model, self._inner)

    # ---- a window ------------------------------------------------------------------------------------------

    def _close_window(self) -> bool:
        """False: a delta has left, and is applied later."""
        if self._settings.pipelined:
            self._arrive()
            self._capture()
            self._finish()
            return True
        self._capture()
        self._depart()
        if self._overlaps and not self._finalizing:
            return False
        self._arrive()
        self._finish()
        return True

    def _capture(self) -> None:
        """This peer's delta, and what it counts."""
        outer, fragment, track = self._outer, self._outer.fragment, self._tracks[self._outer.fragment.number]
        outer.model.check_same()
        self._late = self._is_late()
        moved = track.steps > 0 and not self._late
        weight = self._settings.weighting(track.progress()) if moved and track.whole else 0.0
        if not self._has_share:
            weight = 0.0
        outer.make_delta(fragment, moved=moved)
        delta = outer.delta[: fragment.size]
        self._delta_norm = norm(delta)
        steps, tokens = (0, 0) if self._late else (self._steps, self._tokens)
        speed = self._pace.measure()
        if self._pace.rules.timed:
            speed = self._pace.speed = self._ranks.first(speed)
        own = Own(weight, steps, tokens, float(not self._finalizing), speed)
        if self._heirs is not None and not self._late:
            own.leaving = self._ranks.all(self._leave_asked == "finish")
        if self._how.quantization is None or self._ranks.size > 1:  # else the operation sees to it
            finite = math.isfinite(self._delta_norm) or bool(torch.isfinite(delta).all())
            own.finite = self._ranks.all(finite)
        if not own.finite or weight == 0:
            moved = False
            delta.zero_()
        own.samples = self._samples_of(own)
        if self._settings.rules.merge == "rda":
            parts, joint = outer.of(delta, fragment), self._outer_step.joint(fragment)
            own.extra = rules.directions(parts, self._outer_step.exempt(fragment), joint)
        self._own, self._moved = own, moved

    def _samples_of(self, own: Own) -> torch.Tensor | None:
        """Those that are in this peer's delta."""
        if self._samples is None:
            return None
        window, counts = self._window_in_training, own.weight > 0 and own.finite
        done, steps = self._steps * counts, self._schedule.interval(window)
        used = self._samples.used(self._peer, window, done, steps)
        if not self._finalizing and self._leave_asked is None:
            self._samples.asks(used, self._slot())
        return used

    @property
    def _has_share(self) -> bool:
        """Whether what it has trained is of samples that are its own."""
        if self._samples is None:
            return True
        window = self._window_in_training
        return bool(
            self._samples.used(self._peer, window, self._steps, self._schedule.interval(window)).any()
        )

    @property
    def _window_in_training(self) -> int:
        """Which one of the run, from 0: one more than have been applied, while an average is under way."""
        return self._outer.windows + (self._flight is not None or self._outer.has_pending)

    def _remake(self) -> None:
        """The delta as _capture() left it, to the last bit, as nothing has been trained since."""
        outer, fragment = self._outer, self._outer.fragment
        assert self._own is not None
        outer.make_delta(fragment, moved=self._moved)
        rules.divide(outer.of(outer.delta[: fragment.size], fragment), self._own.extra)

    def _is_late(self) -> bool:
        """Called to a window that it has not finished: it takes part without weight, and goes on with it."""
        return 0 < self._position < self._next_event() and self._called_in() and not self._finalizing

    def _called_in(self) -> bool:
        """Whether the others do not wait for this peer any longer. One clock decides for an island."""
        return self._pace.rules.quorum is not None and self._ranks.first(self._pace.over) > 0

    def _depart(self) -> None:
        assert self._own is not None
        outer, fragment = self._outer, self._outer.fragment
        residual = None if self._feedback is None else self._feedback[str(fragment.number)]
        delta = outer.delta[: fragment.size]
        # What travels while this peer trains on cannot be made again.
        remake = None if self._overlaps else self._remake
        self._flight = Reduction(self._comm, self._how, delta, self._own, self._slot(), residual, remake)
        try:
            self._flight.start()
        except BaseException:
            if not self._flight.posted:
                self._flight = None
                raise
            self._departed(fragment)  # the rest is posted when it is waited for
            raise
        self._departed(fragment)

    def _departed(self, fragment: Fragment) -> None:
        self._stage = Stage.TRAINING if self._settings.pipelined else Stage.FLYING
        if self._overlaps and not self._settings.pipelined:
            self._consume(fragment)

    def _consume(self, fragment: Fragment) -> None:
        """What was trained until now is in a delta; the next one begins."""
        self._position = self._steps = self._tokens = 0
        self._tracks[fragment.number].begin()

    def _arrive(self) -> None:
        """Waits for the commit of what is under way."""
        if self._flight is None:
            return
        began = time.monotonic()
        try:
            landed = self._flight.wait()
            average = self._outer.delta[: self._outer.fragment.size]
            self._unify(average)
            skipped = left_out(landed, average, self._settings.non_finite)
        except NonFiniteError:
            self._lose_flight()
            raise
        except CollectiveError:  # on all peers alike
            if not self._overlaps and not self._flight.committed:
                self._lose_flight()  # and takes its delta anew, which may have more steps by then
            raise
        except BaseException:  # the others wait for what is left of it
            if not self._overlaps and not self._flight.begun:
                self._lose_flight()
            raise
        waited, self._flight = time.monotonic() - began, None
        assert self._own is not None
        window = window_of(
            landed,
            self._outer,
            self._own,
            skipped=skipped,
            waited=waited,
            delta_norm=self._delta_norm,
            feedback=self._feedback,
        )
        self._landed = landed, window
        if self._samples is not None:
            self._samples.commit(landed, self._outer.windows)
        self._outer.commit([window.weight, *landed.totals])
        self.stats.speeds = landed.speeds
        self._pace.speeds = [speed for speed in landed.speeds if speed > 0]

    def _unify(self, average: torch.Tensor) -> None:
        outer, fragment = self._outer, self._outer.fragment
        parameters = outer.model.parameters[fragment.first : fragment.last]
        self._ranks.unify(outer.of(average, fragment), parameters)

    def _lose_flight(self) -> None:
        self._flight = None
        self._stage = Stage.TRAINING

    def _finish(self) -> None:
        """The outer step, if an average is there, and the model after it."""
        outer, fragment, settings = self._outer, self._outer.fragment, self._settings
        landed, self._landed = self._landed, None
        arrived = outer.has_pending
        self._stage = Stage.APPLYING
        if arrived:
            self._apply(fragment, landed[0].extra if landed else [])
        if settings.pipelined:
            self._start_window()
        elif not self._late:
            outer.store_to_model(fragment, keep=0.0 if self._finalizing else settings.alpha)
        track = self._tracks[fragment.number]
        track.whole, track.windows = True, track.windows + 1
        if (settings.pipelined or not self._overlaps) and not self._late:
            self._consume(fragment)
        self._loaded, self._loaded_steps = False, 0
        waiting = 0
        if landed is not None:
            self.stats.add(replace(landed[1], staleness=self._staleness))
            waiting = landed[1].waiting
        self._staleness = 0
        self._stage = self._after_window(waiting, arrived)
        if landed is not None and landed[0].leaving and self._heirs is not None and self._own is not None:
            self._heirs.settle(landed[0].info.contributors, landed[0].leaving, self._own.weight)

    def _apply(self, fragment: Fragment, norms: list[float]) -> None:
        weight, _, _, peers, going_on, _ = self._outer.pending_counts
        self._trained = round(peers)
        self._through = self._through + 1 if round(going_on) == 0 else 0
        if weight <= 0:
            return self._outer.skip()
        self._weight_seen = weight
        self._outer_step.take(fragment, norms, late=self._late)

    def _start_window(self) -> None:
        says = math.isfinite(self._delta_norm) and not self._finalizing
        self._outer_step.start_window(self._own if says else None, self._weight_seen)

    def _after_window(self, waiting: int, arrived: bool) -> Stage:
        """By what all peers know alike. Whether somebody was admitted is not: a joiner may die at once."""
        if waiting:
            return Stage.BOUNDARY
        every = self._settings.verify_every
        if arrived and every and self._outer.windows % every == 0:
            return Stage.ADMITTED
        return self._onward()

    def _onward(self) -> Stage:
        over = self._through >= len(self._tracks)
        return Stage.DEPARTING if self._settings.pipelined and not over else Stage.TRAINING

    def _forget_window(self) -> None:
        """Of a peer that has to take the shared state anew."""
        self._flight = self._landed = self._own = None
        self._restart()

    def _restart(self) -> None:
        self._position = self._steps = self._tokens = 0
        self._loaded, self._loaded_steps = False, 0
        for track in self._tracks:
            track.begin()

    def _slot(self) -> int:
        return self._peer % SLOTS

    @property
    def _peer(self) -> int:
        comm: Any = getattr(self._comm, "comm", self._comm)  # an Island's
        return int(getattr(comm, "id", 0))

    # ---- the schedule --------------------------------------------------------------------------------------

    def _next_event(self) -> int:
        """Where in the schedule sync() is due."""
        if self._stage is Stage.FLYING:
            return self._schedule.delay
        if self._pace.rules.dynamic:
            return self._pace.steps
        return self._schedule.interval(self._outer.windows)

    def _on_step(self) -> None:
        raise NotImplementedError
