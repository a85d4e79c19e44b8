"""The engine of the family: windows, reductions, outer steps, newcomers. Its classes are settings of it.

It owns the outer state and the hook on the inner optimizer; everything runs in the thread that trains.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
import weakref
from dataclasses import replace
from enum import Enum
from types import TracebackType
from typing import Any, Self

import torch

from ..error_feedback import ErrorFeedback
from ..errors import Cancelled, CollectiveError, Evicted, NonFiniteError, OutcomeUnknown, PcclError, UsageError
from ..shared_state import SyncInfo
from . import claims, options, rules
from .options import Settings
from .outer_state import Fragment, OuterState
from .reduction import SLOTS, Comm, How, Landed, Own, Reduction
from .stats import Stats, Window
from .track import Track

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


class Engine:
    """What all classes of the family can do; see DiLoCo for the life of a peer in it."""

    def __init__(
        self, comm: Comm, model: torch.nn.Module, inner: torch.optim.Optimizer, settings: Settings
    ) -> None:
        if not isinstance(inner, torch.optim.Optimizer):
            raise UsageError(f"inner is a {type(inner).__name__}; pass the torch optimizer of the model")
        self._comm = comm
        self._inner = inner
        self._settings = settings
        self._schedule = settings.schedule
        self._outer = OuterState(
            model,
            settings.outer,
            settings.pin_memory,
            num_fragments=self._schedule.num_fragments,
            device=settings.device,
            settings=settings.described,
            overlaps=settings.how.overlaps,
            pipelined=settings.pipelined,
            own_start=settings.staleness == "eager",
        )
        self._overlaps = settings.how.overlaps
        self._how = _how(comm, settings)
        self._feedback = ErrorFeedback() if settings.feedback else None
        self._stage = Stage.OUTSIDE
        self._was_member = False  # of this run or, through a loaded state, of an earlier one
        self._tracks = [Track() for _ in self._outer.fragments]
        self._position = 0  # in the schedule: inner steps since a delta left
        self._steps = 0  # of those, the ones that this peer took
        self._tokens = 0
        self._loaded = False  # in the middle of a window, with the model of that moment
        self._loaded_steps = 0
        self._flight: Reduction | None = None
        self._landed: tuple[Landed, Window] | None = None  # behind its commit, before its application
        self._own: Own | None = None
        self._delta_norm = 0.0
        self._staleness = 0  # inner steps since what is under way was taken
        self._weight_seen = 1.0  # of all peers together, as last heard
        self._entered = False
        self._finalizing = False
        self._through = 0  # commits in a row in which nobody trained who goes on
        self._warned = False
        self.stats = Stats()
        claims.claim(inner, self)
        self._hook = inner.register_step_post_hook(claims.counting(weakref.ref(self)))

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
                return self._advance()
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

    # ---- a window ------------------------------------------------------------------------------------------

    def _advance(self) -> Window | None:
        if self._stage is Stage.APPLYING:
            raise UsageError("an outer step was interrupted and its state is damaged: leave, and join anew")
        if self._stage is Stage.OUTSIDE:
            self._join()
            return None
        if self._stage is Stage.TRAINING:
            if not self._close_window():
                return None
        elif self._stage is Stage.FLYING:
            self._arrive()
            self._finish()
        if self._stage is Stage.BOUNDARY:
            began = time.monotonic()
            self._comm.update_topology()
            self.stats.state_s += time.monotonic() - began
            self._stage = Stage.ADMITTED
        if self._stage is Stage.ADMITTED:
            self._take_shared_state()
        if self._stage is Stage.DEPARTING:
            self._depart()
        return self.stats.last

    def _join(self) -> None:
        self._take_shared_state()
        if self._stage is Stage.DEPARTING:
            self._depart()

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
        trained = track.steps > 0
        weight = self._settings.weighting(track.progress()) if trained and track.whole else 0.0
        if trained:
            outer.take_delta(fragment)
        else:
            outer.delta.zero_()
        delta = outer.delta[: fragment.size]
        self._delta_norm = _norm(delta)
        own = Own(weight, self._steps, self._tokens, float(not self._finalizing))
        if self._how.quantization is None and not math.isfinite(self._delta_norm):
            own.finite = bool(torch.isfinite(delta).all())
        if not own.finite or weight == 0:
            delta.zero_()
        if self._settings.rules.merge == "rda":
            own.extra = rules.directions(outer.of(delta, fragment), self._exempt(fragment)).tolist()
        self._own = own

    def _depart(self) -> None:
        assert self._own is not None
        outer, fragment = self._outer, self._outer.fragment
        residual = None if self._feedback is None else self._feedback[str(fragment.number)]
        delta = outer.delta[: fragment.size]
        self._flight = Reduction(self._comm, self._how, delta, self._own, self._slot(), residual)
        try:
            self._flight.start()
        except BaseException:
            self._flight = None
            raise
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
            skipped = self._check_finite(landed, average)
        except NonFiniteError:
            self._lose_flight()
            raise
        except BaseException:
            if not self._overlaps and not self._flight.committed:
                self._lose_flight()  # and takes its delta anew, which may have more steps by then
            raise
        waited, self._flight = time.monotonic() - began, None
        weight = landed.weight - sum(landed.bad)
        self._landed = landed, self._window(landed, weight, skipped, waited)
        self._outer.commit([weight, *landed.totals])
        self.stats.speeds = landed.speeds

    def _lose_flight(self) -> None:
        self._flight = None
        self._stage = Stage.TRAINING

    def _check_finite(self, landed: Landed, average: torch.Tensor) -> tuple[int, ...]:
        """Ids of the peers whose deltas were left out. Where their zeros were averaged, they are taken out of
        the mean. NonFiniteError on all peers alike, if it is to be raised."""
        bad = {slot for slot, weight in enumerate(landed.bad) if weight > 0}
        if not bad:
            return landed.info.skipped
        ids = tuple(peer for peer in landed.info.contributors if peer % SLOTS in bad)
        names = ", ".join(str(peer) for peer in ids)
        text = f"the delta of peer {names} holds NaN or infinity"
        if self._settings.non_finite == "raise":
            raise NonFiniteError(f"{text}: drop_window() there, then sync() on all peers; or non_finite='skip'")
        logger.warning("%s, and is left out of the average", text)
        left = landed.weight - sum(landed.bad)
        if left > 0:
            average.mul_(landed.weight / left)
        return ids

    def _window(self, landed: Landed, weight: float, skipped: tuple[int, ...], waited: float) -> Window:
        info, outer, own = landed.info, self._outer, self._own
        assert own is not None
        return Window(
            number=outer.windows + 1,
            outer_step=outer.outer_step + (weight > 0),
            contributors=tuple(peer for peer in info.contributors if peer not in skipped),
            weight=weight,
            waiting=info.waiting,
            steps=own.steps,
            delta_norm=self._delta_norm,
            average_norm=_norm(outer.delta[: outer.fragment.size]),
            bytes_sent=landed.bytes_sent,
            bytes_received=landed.bytes_received,
            attempts=info.attempts,
            wait_s=waited,
            committed_at=time.monotonic(),
            fragment=outer.fragment.number,
            reduction_s=info.seconds,
            skipped=skipped,
            quantization_error=self._quantization_error(),
        )

    def _quantization_error(self) -> float | None:
        if self._feedback is None:
            return None
        left = self._feedback.state_dict().get(str(self._outer.fragment.number), [])
        return math.sqrt(sum(_norm(part) ** 2 for part in left))

    def _finish(self) -> None:
        """The outer step, if an average is there, and the model after it."""
        outer, fragment, settings = self._outer, self._outer.fragment, self._settings
        landed, self._landed = self._landed, None
        arrived = outer.has_pending
        self._stage = Stage.APPLYING
        if arrived:
            self._apply(fragment, landed[0].extra if landed else [])
        if settings.pipelined:
            outer.store_to_model(ahead=self._lookahead())
        else:
            outer.store_to_model(fragment, keep=0.0 if self._finalizing else settings.alpha)
        self._tracks[fragment.number].whole = True
        if settings.pipelined or not self._overlaps:
            self._consume(fragment)
        self._loaded, self._loaded_steps = False, 0
        waiting = 0
        if landed is not None:
            self.stats.add(replace(landed[1], staleness=self._staleness))
            waiting = landed[1].waiting
        self._staleness = 0
        self._stage = self._after_window(waiting, arrived)

    def _apply(self, fragment: Fragment, norms: list[float]) -> None:
        outer, settings = self._outer, self._settings
        weight, steps, tokens, peers, going_on = outer.pending_counts
        self._through = self._through + 1 if round(going_on) == 0 else 0
        if weight <= 0:
            return outer.skip()
        self._weight_seen = weight
        if settings.rules.merge == "rda" and norms:
            rules.radial(outer.of(outer.average(), fragment), norms, self._exempt(fragment))
        if settings.rules.gap:
            rules.gap_penalty(outer.average(), float(outer.update_norm))
        flat = outer.parameters[fragment.begin : fragment.end]
        old = flat.clone() if settings.rules.needs_old else None
        outer.apply(round(steps / max(peers, 1)), round(tokens))
        if old is None:
            return
        limit = math.inf
        if settings.rules.clip is not None:
            limit = settings.rules.clip * outer.optimizer.learning_rates[0]
        outer.update_norm.fill_(rules.clip_update(flat, old, limit))

    def _lookahead(self) -> float:
        """Eager updates: what this peer's own part of the average under way will do, about."""
        if self._settings.staleness != "eager" or self._own is None or not self._own.weight:
            return 0.0
        return self._outer.optimizer.learning_rates[0] * self._own.weight / self._weight_seen

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

    def _exempt(self, fragment: Fragment) -> list[bool]:
        return self._outer.model.in_embedding[fragment.first : fragment.last]

    def _slot(self) -> int:
        comm: Any = getattr(self._comm, "comm", self._comm)  # an Island's
        return int(getattr(comm, "id", 0)) % SLOTS

    # ---- the shared state ----------------------------------------------------------------------------------

    def _take_shared_state(self) -> None:
        joining, outer = self._stage is Stage.OUTSIDE, self._outer
        if self._steps != self._loaded_steps and joining:
            raise UsageError(f"{self._steps} inner steps before the first sync(), which says where to start")
        claims.claim_parameters(outer.model.parameters, self)
        outer.model.check_same()
        if not self._was_member:
            outer.load_from_model()
        goes_on = self._onward() is Stage.DEPARTING or not self._settings.pipelined
        outer.before_sync(phase=int(not joining and goes_on))
        if self._was_member and not outer.shared.torn:
            outer.shared.revision = 2 * outer.revision - joining
        offered = outer.shared.revision
        began = time.monotonic()
        info = self._synchronize()
        phase = outer.after_sync()
        changed = bool(info.donors) or info.revision != offered
        if changed or (joining and not self._loaded):
            self._start_from_outer(mid_run=bool(phase))
        if joining and info.revision > 0 and changed and self._settings.inner_on_join == "zero":
            self._inner.state.clear()
        self._note(info, time.monotonic() - began, repaired=changed and not joining)
        self._was_member = True
        self._weight_seen = float(max(1, len(info.contributors)))
        self._stage = self._resumed(joining, phase)

    def _start_from_outer(self, mid_run: bool) -> None:
        outer = self._outer
        outer.store_to_model()
        self._restart()
        if mid_run and len(self._tracks) > 1:
            for track in self._tracks:
                track.whole = False
            self._tracks[(outer.windows - 1) % len(self._tracks)].whole = True
        if mid_run and not self._settings.pipelined:
            self._position = self._schedule.delay  # where the others are

    def _resumed(self, joining: bool, phase: int) -> Stage:
        if not joining:
            return self._onward()
        if self._settings.pipelined and phase:
            self._outer.delta.zero_()
            self._own = Own(0.0, 0, 0, float(not self._finalizing))
            return Stage.DEPARTING
        pending = self._outer.has_pending and not self._settings.pipelined
        return Stage.FLYING if pending else Stage.TRAINING

    def _synchronize(self) -> SyncInfo:
        while True:
            try:
                return self._comm.sync_shared_state(self._outer.shared, scope="run")
            except Cancelled as error:
                logger.warning("%s; synchronizing again", error)
            except CollectiveError:
                raise  # on every peer alike: they call again
            except PcclError:
                self._outer.shared.revision = 0  # what is here may be a mixture, and must win no election
                self._was_member = False
                raise

    def _note(self, info: SyncInfo, seconds: float, *, repaired: bool) -> None:
        stats = self.stats
        stats.state_bytes_sent += info.bytes_sent
        stats.state_bytes_received += info.bytes_received
        stats.state_s += seconds
        stats.synchronizations += 1
        if repaired:
            stats.repairs += 1
            text = "the outer state of this peer differed after window %d and was mended"
            logger.warning(text, self._outer.windows)

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
        return {"kind": self._settings.kind, **self._outer.state_dict(), **private}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Before the first sync(). For the middle of a window, load the model and the inner optimizer too.

        Where peers load different states, the one with the most windows wins and the others start from it.
        """
        if self._stage is not Stage.OUTSIDE:
            raise UsageError("load_state_dict() after the first sync(): load before it, or peers differ")
        if saved.get("kind") != self._settings.kind:
            raise UsageError(f"the saved state is of {saved.get('kind')!r}, not of {self._settings.kind!r}")
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
        if self._flight is not None:
            self._staleness += 1
        if self._position < self._next_event():
            return
        if self._entered:
            self.sync()
        elif self._stage is Stage.OUTSIDE and not self._warned:
            self._warned = True
            kind = self._settings.kind
            text = f"{self._steps} inner steps and no sync(): use this {kind} in a `with`, or call its sync()"
            warnings.warn(f"{text} before the first step and after each window", stacklevel=3)

    def _next_event(self) -> int:
        """Where in the schedule sync() is due."""
        if self._stage is Stage.FLYING:
            return self._schedule.delay
        return self._schedule.interval(self._outer.windows)


def _how(comm: Comm, settings: Settings) -> How:
    """An Island's operations end in the call; what would overlap is reduced where it is applied."""
    posts = hasattr(comm, "comm")
    return replace(settings.how, overlaps=False) if posts else settings.how


def _norm(flat: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(flat))
