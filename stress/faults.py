"""When whom what happens to: drawn from the seed before the run begins, so that a seed replays it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Kind = Literal["kill", "pause", "freeze", "leave", "join"]

# A pause ends before the heartbeat limit (2 s by default), a freeze after it.
PAUSE_S = (0.02, 0.8)
FREEZE_S = (2.3, 3.2)


@dataclass(frozen=True)
class Fault:
    """`kill` SIGKILL; `pause`, `freeze` SIGSTOP for `lasts_s`; `leave` SIGTERM; `join` one peer more than
    usual.

    order            places to try, the first eligible one is taken
    after_operation  None: at once. Else when it next starts operations, and this share of a window's time
    later replaced_s       the place is filled again so long after
    """

    at_s: float
    kind: Kind
    order: tuple[int, ...]
    after_operation: float | None
    lasts_s: float
    replaced_s: float


def plan_faults(seed: int, seconds: float, kills: int, places: int) -> list[Fault]:
    """`kills` kills, and pauses, freezes, leaves and joins among them, in order of time."""
    draw = random.Random(f"{seed} faults")
    kinds: list[Kind] = ["pause"] * max(1, kills // 8)
    kinds += ["leave", "join"] * max(1, kills // 10)
    kinds += ["freeze"] * max(1, round(seconds / 20))  # each costs the run the heartbeat limit
    faults = [_fault(draw, kind, draw.random() * seconds, places) for kind in kinds]
    at_s = 0.0
    for number in range(kills):
        pair = number > 0 and draw.random() < 0.08  # two at almost the same time
        at_s = at_s + draw.random() * 0.01 if pair else draw.random() * seconds
        faults.append(_fault(draw, "kill", at_s, places))
    return sorted(faults, key=lambda fault: fault.at_s)


def _fault(draw: random.Random, kind: Kind, at_s: float, places: int) -> Fault:
    low, high = FREEZE_S if kind == "freeze" else PAUSE_S
    return Fault(
        at_s=at_s,
        kind=kind,
        order=tuple(draw.sample(range(places), places)),
        after_operation=draw.random() * 1.2 if draw.random() < 0.6 else None,
        lasts_s=low + (high - low) * draw.random(),
        replaced_s=draw.random() ** 2 * 0.4,
    )
