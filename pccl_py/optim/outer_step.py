"""From an average to the outer parameters, and to where a window starts: the rules of staleness, merge and
clip.

In the thread that trains, behind a commit; the same bits on all peers.
"""

from __future__ import annotations

import math

import torch

from . import rules
from .islands import Ranks
from .norms import exact_norm, exact_square
from .options import Settings
from .outer_state import Fragment, OuterState
from .reduction import Own


class OuterStep:
    """Of one peer's outer state."""

    def __init__(self, outer: OuterState, settings: Settings, ranks: Ranks) -> None:
        self._outer, self._settings, self._ranks = outer, settings, ranks

    def take(self, fragment: Fragment, norms: list[float], *, late: bool) -> None:
        """With the average that waits, of some weight. norms: the mean ones of merge="rda"; late: the model
        keeps what this peer has trained."""
        outer, settings = self._outer, self._settings
        weight, steps, tokens, peers, _, everybody = outer.pending_counts
        if settings.rules.merge == "rda" and norms:
            parts = outer.of(outer.average(), fragment)
            rules.radial(parts, norms, self.exempt(fragment), self.joint(fragment))
        if settings.rules.shares and round(everybody):
            outer.average().mul_(weight / round(everybody))
        if settings.rules.gap:
            average = outer.average()
            rules.gap_penalty(average, self._norm_of(average, fragment), float(outer.update_norm))
        flat = outer.parameters[fragment.begin : fragment.end]
        old = flat.clone() if settings.rules.needs_old or late else None
        outer.apply(round(steps / max(peers, 1)), round(tokens))
        if old is not None and settings.rules.needs_old:
            self._limit(flat, old, fragment)
        if old is not None and late:
            outer.rebase(fragment, old)

    def _limit(self, flat: torch.Tensor, old: torch.Tensor, fragment: Fragment) -> None:
        outer, settings = self._outer, self._settings
        limit = math.inf
        if settings.rules.clip is not None:
            limit = settings.rules.clip * outer.optimizer.learning_rates[0]
        length, applied = rules.clip_update(flat, old, limit, lambda t: self._norm_of(t, fragment))
        outer.update_norm.fill_(length - applied if settings.lookahead else applied)

    def joint(self, fragment: Fragment) -> rules.Joint:
        parameters = self._outer.model.parameters[fragment.first : fragment.last]
        return lambda squares: self._ranks.sums(squares, parameters)

    def exempt(self, fragment: Fragment) -> list[bool]:
        """Parameters that merge="rda" leaves alone."""
        return self._outer.model.in_embedding[fragment.first : fragment.last]

    def _norm_of(self, flat: torch.Tensor, fragment: Fragment) -> float:
        """Of a fragment, over all ranks of the island."""
        if self._ranks.size == 1:
            return exact_norm(flat)
        parts = self._outer.of(flat, fragment)
        return math.sqrt(math.fsum(self.joint(fragment)([exact_square(p.reshape(-1)) for p in parts])))

    def start_window(self, own: Own | None, weight_seen: float) -> None:
        """Ahead of the outer parameters by what this peer knows of the average that is to travel; own: what
        it brings to it, None where that says nothing. weight_seen: of all peers together."""
        outer, settings = self._outer, self._settings
        if own is None or not own.weight or not own.finite:
            outer.store_to_model()
        elif settings.lookahead:
            outer.store_looking_ahead()
        elif settings.staleness == "eager":
            outer.store_ahead(outer.optimizer.learning_rates[0] * own.weight / weight_seen)
        else:
            outer.store_to_model()
