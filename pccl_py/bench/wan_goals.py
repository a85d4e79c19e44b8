"""`bench wan --goals`: the networks and sizes in which the project promises a share of the bound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from . import wan
from .units import KIB, MIB
from .wan_row import Options, Row

GOALS = (
    # One operation over a long line that loses packets: 80 % of what rate and distance allow.
    Options(peers=2, sizes=[64 * MIB], rtt_ms=100, rate_mbit=1000, loss=0.001, goal=1 / 0.8),
    # Few bytes: one hop.
    Options(peers=4, sizes=[64 * KIB], rtt_ms=80, rate_mbit=1000, goal=1.5),
    # Many bytes over narrow lines: they are always full.
    Options(peers=4, sizes=[32 * MIB], rtt_ms=80, rate_mbit=250, goal=1.1),
)


def measure(repeats: int, congestion_control: str = "auto") -> Iterator[Row]:
    """A row for each. Raises CannotMeasure or WorkerFailed."""
    for options in GOALS:
        yield from wan.measure(replace(options, repeats=repeats, congestion_control=congestion_control))
