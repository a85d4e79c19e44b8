"""The plan of a rank's shard file, made once and kept while names, shapes and dtypes stay."""

from __future__ import annotations

from collections.abc import Sequence

from . import safetensors_header
from .pieces import Piece


class ShardPlans:
    """Keeps the last plan. Called on the thread that saves a state, never in the background."""

    def __init__(self) -> None:
        self._key: list[tuple[str, str, tuple[int, ...]]] = []
        self._plan: safetensors_header.ShardPlan | None = None

    def plan(self, pieces: Sequence[Piece]) -> safetensors_header.ShardPlan:
        key = [(piece.name, piece.dtype, piece.shape) for piece in pieces]
        if self._plan is None or key != self._key:
            entries = [(piece.name, piece.dtype, piece.shape, piece.rows.nbytes) for piece in pieces]
            self._key, self._plan = key, safetensors_header.plan(entries)
        return self._plan
