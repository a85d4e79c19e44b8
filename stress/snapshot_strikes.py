"""What happens to the places of `stress snapshots`, by a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

What = Literal["trainer", "keeper", "both", "stop"]
SECONDS_MAX = 0.01  # after a moment
WORKING = ("flip", "round", "encode", "vote", "coded")  # moments that come by themselves
BRINGING = ("round", "rescue", "move", "bring", "adopt", "attach", "encode", "vote", "coded")


@dataclass(frozen=True)
class Blow:
    """At `moment` of the keeper's work, where it has one, and `seconds` later."""

    place: int
    what: What
    moment: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Strike:
    """blows: at once, when the first one's keeper reaches `moment`, or after delay_s
    after      one more, while what was lost is brought back
    stop_s     until what is stopped goes on;   away_s: until who was killed is replaced
    alone      one more, once the others are safe without those that were struck
    """

    blows: tuple[Blow, ...]
    moment: str = ""
    delay_s: float = 0.0
    after: Blow | None = None
    stop_s: float = 0.0
    away_s: float = 0.0
    alone: Blow | None = None

    @property
    def lost(self) -> set[int]:
        """Places whose keeper is lost, or may be."""
        every = (*self.blows, *([] if self.after is None else [self.after]))
        return {blow.place for blow in every if blow.what != "trainer"}

    @property
    def certain(self) -> bool:
        """All are lost at once, with their trainers."""
        return self.after is None and not self.moment and all(blow.what == "both" for blow in self.blows)


PHASES_PEERS, PHASES_PARITY = 4, 2


def every_phase() -> list[Strike]:
    """Trainer, keeper and both, in each phase of a snapshot; then, while what was lost is brought back, in
    those of that: the next keeper of who was struck, or one more place's."""
    first: list[tuple[str, What]] = [
        (moment, what) for moment in WORKING for what in ("trainer", "keeper", "both")
    ]
    then: list[tuple[int, What, str]] = [
        (place, what, moment)
        for moment in ("rescue", "move", "bring", "adopt", "attach")
        for place, what in ((1, "both"), (0, "keeper"), (0, "trainer"))
    ]
    return [
        Strike((Blow(0, what), Blow(2, "trainer")), moment, after=Blow(place, after, when))
        for (moment, what), (place, after, when) in zip(first, then, strict=True)
    ]


def drawn(dice: random.Random, peers: int, parity: int) -> Strike:
    places = dice.sample(range(peers), peers)
    if dice.random() < 0.1 and parity + 1 < peers:  # one too many
        return Strike(tuple(Blow(place, "both") for place in places[: parity + 1]), delay_s=_soon(dice))
    allowed = dice.randint(0, parity)  # of keepers
    after, hard = None, allowed
    if allowed and dice.random() < 0.4:
        hard -= dice.random() < 0.5  # it meets one more, or the next keeper of one that was struck
        place = places[dice.randrange(hard)] if hard == allowed else places[hard]
        after = _after(dice, place)
    blows = [Blow(place, _hard(dice)) for place in places[:hard]]
    soft = 0 if blows and dice.random() < 0.6 else dice.randint(1, max(1, peers // 2))
    blows += [Blow(place, "trainer") for place in places[allowed : allowed + soft]]
    stopped = any(blow.what == "stop" for blow in (*blows, *([after] if after else [])))
    moment = dice.choice(WORKING) if blows[0].what != "trainer" and dice.random() < 0.5 else ""
    seconds = dice.choice((0.0, 0.0, 0.002, SECONDS_MAX)) if moment else 0.0
    blows[0] = Blow(blows[0].place, blows[0].what, seconds=seconds)
    away = bool(blows[0].what == "both" and after is None and not stopped and peers - hard > 2)
    alone = Blow(places[-1], "both") if away and dice.random() < 0.3 else None
    return Strike(
        tuple(blows),
        moment,
        _soon(dice),
        after,
        dice.choice((0.3, 1.0, 4.0)) if stopped else 0.0,
        dice.choice((0.0, 0.0, 0.1, 0.5)),
        alone,
    )


def _after(dice: random.Random, place: int) -> Blow:
    what: What = dice.choice(("keeper", "keeper", "both"))
    return Blow(place, what, dice.choice(BRINGING), dice.choice((0.0, 0.005)))


def _hard(dice: random.Random) -> What:
    return dice.choices(("both", "keeper", "stop"), (6, 3, 1))[0]


def _soon(dice: random.Random) -> float:
    return dice.uniform(0.0, 0.3)
