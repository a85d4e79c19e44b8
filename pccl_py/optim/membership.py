"""How a peer of the family comes in, and what it does at a boundary: the shared state."""

from __future__ import annotations

import logging
import time

from ..errors import Cancelled, CollectiveError, PcclError, UsageError
from ..shared_state import SyncInfo
from . import claims
from .reduction import Own
from .stats import Window
from .windows import Stage, Windows

logger = logging.getLogger("pccl_py.optim")


class Membership(Windows):
    """From one stage to the next."""

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
        if self._was_member and not outer.shared.torn and not self._mixed:
            outer.shared.revision = 2 * outer.revision - joining
        offered = outer.shared.revision
        began = time.monotonic()
        info = self._synchronize()
        phase = outer.after_sync()
        if self._samples is not None:
            self._samples.seat(info.contributors, outer.windows, running=bool(phase))
        changed = bool(info.donors) or info.revision != offered
        if changed or (joining and not self._loaded):
            self._start_from_outer(mid_run=bool(phase))
        came = joining and info.revision > 0 and changed
        if came and self._settings.inner_on_join == "zero":
            self._inner.state.clear()
        self._note(info, time.monotonic() - began, repaired=changed and not joining)
        self._was_member, self._mixed = True, False
        self._weight_seen = float(max(1, len(info.contributors)))
        if self._inner_copy is not None:
            self._inner_copy.wanted |= came
            self._inner_copy.settle(self._slot())
        if joining:
            self._ranks.find_copies(outer.views(), outer.model.parameters)
        self._stage = self._resumed(joining, phase)
        if self._inner_copy is not None:
            self._inner_copy.exchange()

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
            if self._samples is not None:
                self._own.samples = self._samples.nothing()
                self._samples.asks(self._own.samples, self._slot())
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
                self._mixed = True
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
