"""What keepers do next, from what all of them said: pure, so that all come to the same.

First what was lost is brought back, while the generation that has it can be decoded: to the keeper whose
trainer wants it, or else to one that keeps it. Then what is new is coded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ..errors import ProtocolError
from . import limits
from .generation import KEEPERS_MAX, Generation, Lane, Missed, Place, Share, arranged
from .standing import AGE_MS_MAX, Held, Standing

PATIENCE_MS = AGE_MS_MAX  # a snapshot waits so long for those of other trainers
PAUSE_MS = 1000  # what was just brought back for nobody is soon wanted, if its host is replaced at once


@dataclass(frozen=True, slots=True)
class Rescue:
    """Decode a lost snapshot; it is the keeper's with rank `owner` then."""

    place: Place
    lane: Lane
    owner: int


@dataclass(frozen=True, slots=True)
class Move:
    """A keeper with rank `source` has it."""

    lane: Lane
    source: int
    owner: int


@dataclass(frozen=True, slots=True)
class Encode:
    generation: Generation


@dataclass(frozen=True, slots=True)
class Gone:
    """Nobody can bring it back. `held` False: nobody has ever heard of it."""

    trainer: str
    owner: int
    why: str
    held: bool


Work = Rescue | Move | Encode | Gone


def decide(said: Sequence[Standing], known: Generation | None) -> Work | None:
    """`said`: by rank. None: nothing is to be done."""
    if len({one.keeper for one in said}) != len(said):
        raise ProtocolError("two keepers of the run have the same name")
    held = _holders(said, known)
    wants = {word.name: rank for rank, one in enumerate(said) for word in one.wants}
    return _lost(said, known, held, wants) or _wanted(known, held, wants) or _new(said, known, held)


def _holders(said: Sequence[Standing], known: Generation | None) -> dict[str, tuple[int, Held]]:
    """Whose snapshot of a trainer counts: the newest one's, or where its trainer is."""
    best: dict[str, tuple[int, Held]] = {}
    outdated = Outdated(known)
    for rank, one in enumerate(said):
        for held in one.held:
            if outdated.at(one.keeper, held):
                continue
            before = best.get(held.trainer)
            if before is None or (before[1].step, before[1].attached) < (held.step, held.attached):
                best[held.trainer] = (rank, held)
    return best


def _ranks(said: Sequence[Standing], number: int) -> dict[str, int]:
    return {one.keeper: rank for rank, one in enumerate(said) if one.intact == number}


def _lost(
    said: Sequence[Standing],
    known: Generation | None,
    held: dict[str, tuple[int, Held]],
    wants: dict[str, int],
) -> Work | None:
    if known is None:
        return None
    given_up = {word.name for one in said for word in (*one.hopeless, *one.freed)}
    present = _ranks(said, known.number)
    for trainer, (place, lane) in sorted(known.places().items()):
        if trainer in held or trainer in given_up:
            continue
        owner = wants.get(trainer, _roomiest(said, known, place))
        if owner is not None and known.can_rescue(place, lane, present):
            return Rescue(place, lane, owner)
    return None


def _roomiest(said: Sequence[Standing], known: Generation, place: Place) -> int | None:
    """But the one that had it: if it is there, then what it has is worth nothing, and in the way."""
    home = known.groups[place.group].shares[place.slot].keeper
    others = [rank for rank, one in enumerate(said) if one.keeper != home]
    return min(others, key=lambda rank: (sum(one.bytes for one in said[rank].held), rank), default=None)


def _wanted(
    known: Generation | None, held: dict[str, tuple[int, Held]], wants: dict[str, int]
) -> Work | None:
    places = {} if known is None else known.places()
    missed = {} if known is None else {one.trainer: one.why for one in known.missed}
    for trainer, owner in sorted(wants.items()):
        if trainer in held:
            source, one = held[trainer]
            if source != owner:
                return Move(one.lane, source, owner)
        elif trainer in places and known is not None:
            place, lane = places[trainer]
            return Gone(trainer, owner, _gone(known, place, lane), True)
        elif trainer in missed:
            return Gone(trainer, owner, missed[trainer], True)
        else:
            return Gone(trainer, owner, "no keeper of the run has ever had a snapshot of it", False)
    return None


def _gone(known: Generation, place: Place, lane: Lane) -> str:
    k, m = known.code(place.group)
    keepers = ", ".join(f"{s.keeper} ({s.domain})" for s in known.groups[place.group].shares)
    return (
        f"step {lane.step} of trainer {lane.trainer!r} is gone: any {k} of the {k + m} keepers of its code "
        f"group could give it back ({keepers}), and more than {m} are lost, or have lost their part; load "
        "the newest checkpoint"
    )


def _new(
    said: Sequence[Standing], known: Generation | None, held: dict[str, tuple[int, Held]]
) -> Encode | None:
    """Once every trainer that is there has something newer, or the first of them has waited long enough."""
    places = {} if known is None else known.places()
    before = {trainer: lane.step for trainer, (_, lane) in places.items()}
    fresh = [one for _, one in held.values() if before.get(one.trainer, -1) < one.step]
    late = any(one.attached and before.get(one.trainer, -1) >= one.step for _, one in held.values())
    moved = known is None or known.keepers != {one.keeper for one in said} or not _whole(said, known)
    if not held or not (fresh or moved):
        return None
    if not fresh and any(not one.attached and one.age_ms < PAUSE_MS for _, one in held.values()):
        return None  # else its trainer would wait for the coding, which would begin anew with it
    if fresh and late and not moved and max(one.age_ms for one in fresh) < PATIENCE_MS:
        return None
    shares = []
    for rank, one in enumerate(said):
        lanes = sorted(own.lane.trainer for at, own in held.values() if at == rank)
        shares.append(Share(one.keeper, one.domain, tuple(held[name][1].lane for name in lanes)))
    number = 1 + max([one.known for one in said] + [0 if known is None else known.number])
    return Encode(arranged(number, max(one.parity for one in said), shares, _missed(said, known, held)))


def _missed(
    said: Sequence[Standing], known: Generation | None, held: dict[str, tuple[int, Held]]
) -> tuple[Missed, ...]:
    """What the next generation has not, and nobody freed."""
    if known is None:
        return ()
    freed = {word.name for one in said for word in one.freed}
    now = [
        Missed(trainer, _gone(known, place, lane)[: limits.TEXT_CHARS_MAX])
        for trainer, (place, lane) in known.places().items()
    ]
    every = [*now, *known.missed]
    return tuple(one for one in every if one.trainer not in held and one.trainer not in freed)[:KEEPERS_MAX]


def _whole(said: Sequence[Standing], known: Generation) -> bool:
    """Whether all who have a share of it still do."""
    return all(one.intact == known.number for one in said)


def attached(said: Iterable[Standing]) -> set[str]:
    """Trainers that are there, and have a snapshot."""
    return {held.trainer for one in said for held in one.held if held.attached}


class Outdated:
    """Copies that the generation `known` has a newer snapshot of, of another keeper: whoever took one of them
    for that would go back in time. Where the newer one was, its trainer itself may have given it up."""

    def __init__(self, known: Generation | None) -> None:
        shares = [] if known is None else [share for group in known.groups for share in group.shares]
        self._newest = {lane.trainer: (share.keeper, lane.step) for share in shares for lane in share.lanes}

    def at(self, keeper: str, held: Held) -> bool:
        home, step = self._newest.get(held.trainer, (keeper, -1))
        return not held.attached and home != keeper and held.step < step


def needless(
    said: Sequence[Standing],
    rank: int,
    freed: Collection[str],
    share: Collection[str],
    known: Generation | None = None,
) -> tuple[list[str], list[str]]:
    """Copies of the keeper with this rank that are for nobody: of trainers that have freed theirs, and those
    that are outdated, or of trainers that go on elsewhere with one that is as new, where no parity is made of
    this one. share: trainers whose snapshots are in its share."""
    over, elsewhere = [], []
    outdated = Outdated(known)
    for own in said[rank].held:
        if own.attached:
            continue
        if own.trainer in freed:
            over.append(own.trainer)
        elif own.trainer not in share and (
            outdated.at(said[rank].keeper, own) or _goes_on_elsewhere(said, rank, own)
        ):
            elsewhere.append(own.trainer)
    return over, elsewhere


def _goes_on_elsewhere(said: Sequence[Standing], rank: int, own: Held) -> bool:
    return any(
        other.trainer == own.trainer and other.attached and other.step >= own.step
        for at, one in enumerate(said)
        if at != rank
        for other in one.held
    )
