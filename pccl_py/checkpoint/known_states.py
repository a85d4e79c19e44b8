"""What a Checkpointer remembers of the states that it saves, so that the next save need not find it again."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from ..state.train_state import Taken, TrainState, as_state
from .shard_plans import ShardContent, ShardPlans


class KnownStates:
    """It goes with the state: no tensor lives longer for having been saved. But for the last dict, whose
    parts are held until another one is saved, or `forget()`."""

    def __init__(self) -> None:
        self._plans: WeakKeyDictionary[TrainState, ShardPlans] = WeakKeyDictionary()
        self._dict: tuple[dict[str, Any], TrainState] | None = None  # the last one, and what it became

    def of(self, state: Any) -> TrainState:
        """The same TrainState for a dict of the same parts: it knows what it has found in them."""
        known = self._found(state)
        if (plans := self._plans.get(known)) is not None:
            plans.fetch()
        return known

    def _found(self, state: Any) -> TrainState:
        if not isinstance(state, dict):
            return as_state(state)
        if (
            self._dict is None
            or state.keys() != self._dict[0].keys()
            or any(state[name] is not part for name, part in self._dict[0].items())
        ):
            self._dict = (dict(state), as_state(state))
        return self._dict[1]

    def content(self, state: TrainState, taken: Taken) -> ShardContent:
        return self._plans.setdefault(state, ShardPlans()).content(taken)

    def forget(self) -> None:
        self._dict = None
        self._plans.clear()
