"""The plan of a rank's shard file, made once and kept while names, shapes, dtypes and memory stay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from operator import attrgetter

from ..state.objects import Place, places_of
from ..state.train_state import Taken
from . import native, safetensors_header
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
    objects: InitVar[Sequence[Place]] = ()  # of the state's own tensors
    fetch: native.Prefetch = field(init=False)  # what the next save of it looks at

    def __post_init__(self, objects: Sequence[Place]) -> None:
        owned: dict[int | None, list[int]] = defaultdict(list)
        for index, piece in enumerate(self.pieces):
            owned[piece.owner].append(index)
        object.__setattr__(self, "places", [(one.rows.data_ptr(), one.rows.nbytes) for one in self.pieces])
        object.__setattr__(self, "foreign", foreign(self.pieces))
        object.__setattr__(self, "owned", dict(owned))
        object.__setattr__(self, "uncounted", any(one.rows.is_inference() for one in self.pieces))
        looked_at = [place for one in self.pieces for place in places_of(one.rows)]
        object.__setattr__(self, "fetch", native.Prefetch([*objects, *looked_at, *self.glimpses.places]))

    def versions(self) -> list[int]:
        """Torch counts writes; an alarm only: numpy views and `.data` pass it unnoticed."""
        if self.uncounted:
            return [0 if one.rows.is_inference() else one.rows._version for one in self.pieces]
        return list(map(_VERSION, map(_ROWS, self.pieces)))


class ShardPlans:
    """Keeps the last plan of one state. Called on the thread that saves a state, never in the background."""

    def __init__(self) -> None:
        self._taken: Taken | None = None
        self._content: ShardContent | None = None

    def fetch(self) -> None:
        """Before the state is looked at again: its objects are far apart, and training had the caches."""
        if self._content is not None:
            self._content.fetch.begin()

    def content(self, taken: Taken) -> ShardContent:
        content = self._content
        if content is None or not self._same(taken):
            pieces, aliases = pieces_of(taken)
            entries = [(piece.name, piece.dtype, piece.shape, piece.rows.nbytes) for piece in pieces]
            content = ShardContent(
                pieces, aliases, safetensors_header.plan(entries), Glimpses(pieces), taken.objects
            )
            self._taken = taken
            # A piece that was copied is of one moment: such a state is planned anew each time.
            self._content = None if any(piece.copied for piece in pieces) else content
        return content

    def _same(self, taken: Taken) -> bool:
        """Boxes and owners are the same objects where the state found the same memory by the same names."""
        before = self._taken
        return (
            before is not None
            and taken.boxes is before.boxes
            and (taken.owners is before.owners or taken.owners == before.owners)
        )
