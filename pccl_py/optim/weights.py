"""How much a peer's delta counts: `weighting=`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import UsageError


@dataclass(frozen=True, slots=True)
class Progress:
    """Of one peer, since it last took the outer parameters that its delta is measured from.

    steps, tokens   inner steps, and tokens as add_tokens() was told
    seconds         of time that passed
    windows         commits until this one, itself included: 1, and more where it was too late for some
    """

    steps: int
    tokens: int
    seconds: float
    windows: int


Weighting = Callable[[Progress], float]


def uniform(progress: Progress) -> float:
    return 1.0


def by_tokens(progress: Progress) -> float:
    return float(progress.tokens)


def by_rarity(progress: Progress) -> float:
    """A peer that is in every n-th average counts n times there, and the average for as much as is in it of
    all peers; so that in the long run all count alike (FedFix, arXiv 2206.10189)."""
    return float(progress.windows)


_NAMED: dict[str, Weighting] = {"uniform": uniform, "tokens": by_tokens, "rarity": by_rarity}


def weighting_of(value: object) -> Weighting:
    if isinstance(value, str) and value in _NAMED:
        return _NAMED[value]
    if callable(value):
        return value
    names = ", ".join(map(repr, _NAMED))
    raise UsageError(f"weighting={value!r}: it is {names}, or a function of a Progress")


def described(value: object) -> str:
    """For the settings that all peers share; a function is known by its name only."""
    return value if isinstance(value, str) else f"function {getattr(value, '__qualname__', '')}"
