"""The plan of a rank's shard file, made once and kept while names, shapes, dtypes and memory stay."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from operator import attrgetter

from ..state.boxed import Boxed
from ..state.train_state import Taken
from . import safetensors_header
from .foreign import foreign
from .glimpse import Glimpses
from .pieces import Alias, Piece, pieces_of

_ROWS, _VERSION = attrgetter("rows"), attrgetter("_version")


@dataclass(frozen=True, slots=True)
class ShardContent:
    """The pieces in the file's order, second names of some, and where each comes to lie."""

    pieces: list[Piece]
    aliases: list[Alias]
    plan: safetensors_header.ShardPlan
    glimpses: Glimpses
    places: list[tuple[int, int]] = field(init=False)  # address and bytes of each piece
    foreign: list[int] = field(init=False)  # those that the core cannot read
    owned: dict[int | None, list[int]] = field(init=False)  # by owner
    uncounted: bool = field(init=False)  # of some pieces torch counts no writes

    def __post_init__(self) -> None:
        owned: dict[int | None, list[int]] = defaultdict(list)
        for index, piece in enumerate(self.pieces):
            owned[piece.owner].append(index)
        object.__setattr__(self, "places", [(one.rows.data_ptr(), one.rows.nbytes) for one in self.pieces])
        object.__setattr__(self, "foreign", foreign(self.pieces))
        object.__setattr__(self, "owned", dict(owned))
        object.__setattr__(self, "uncounted", any(one.rows.is_inference() for one in self.pieces))

    def versions(self) -> list[int]:
        """Torch counts writes; an alarm only: numpy views and `.data` pass it unnoticed."""
        if self.uncounted:
            return [0 if one.rows.is_inference() else one.rows._version for one in self.pieces]
        return list(map(_VERSION, map(_ROWS, self.pieces)))


class ShardPlans:
    """Keeps the last plan of one state. Called on the thread that saves a state, never in the background."""

    def __init__(self) -> None:
        self._boxes: list[Boxed] = []
        self._owners: dict[str, int] = {}
        self._content: ShardContent | None = None

    def content(self, taken: Taken) -> ShardContent:
        content = self._content
        if content is None or not self._same(taken):
            pieces, aliases = pieces_of(taken)
            entries = [(piece.name, piece.dtype, piece.shape, piece.rows.nbytes) for piece in pieces]
            content = ShardContent(pieces, aliases, safetensors_header.plan(entries), Glimpses(pieces))
            self._boxes, self._owners = list(taken.boxes.values()), dict(taken.owners)
            # A piece that was copied is of one moment: such a state is planned anew each time.
            self._content = None if any(piece.copied for piece in pieces) else content
        return content

    def _same(self, taken: Taken) -> bool:
        """Boxes are the same objects where the state found the same memory under the same name."""
        boxes = self._boxes
        return (
            len(boxes) == len(taken.boxes)
            and all(now is before for now, before in zip(taken.boxes.values(), boxes, strict=True))
            and taken.owners == self._owners
        )
