"""`bench join`: a newcomer comes into a group of two, which reduces and calls update_topology() in turns."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

from . import transports
from .crew import Crew, each
from .looping import LoopingPeer
from .peers import start_master
from .report import Figure
from .units import KIB, percentile

ADMISSION_GOAL_S = 0.015
SIZE = 64 * KIB


def measure(joins: int, **settings: Any) -> Iterator[Figure]:
    """Seconds from the boundary, which both members have reached, to the newcomer's admission; and those of
    its whole connect."""
    transports.check(settings.get("transport", "auto"))
    admission, connect = [], []
    with Crew() as crew:
        master = start_master(crew)
        address = master[1]["address"]
        start = partial(LoopingPeer, master[0].pid, size=SIZE, **settings)
        members = [crew.start(f"peer {i}", start, i) for i in range(2)]
        each(members, "join", address=address, min_islands=2)
        for _ in range(joins):
            newcomer = crew.start("the newcomer", start, 2)
            newcomer.call("ready")
            for member in members:
                member.send("run_until_joined", islands=3)
            joined = newcomer.call("join", address=address)
            reached = max(member.receive()["entered"] for member in members)
            admission.append(joined["ended"] - reached)
            connect.append(joined["ended"] - joined["began"])
            each([*members, newcomer], "reduce")
            newcomer.call("leave")
            crew.end(newcomer)
            each(members, "reduce")
    details = {"joins": joins, "p90_ms": percentile(admission, 90) * 1e3, "max_ms": max(admission) * 1e3}
    yield Figure(
        "join", "boundary reached to admission", statistics.median(admission), "s", ADMISSION_GOAL_S, details
    )
    details = {"joins": joins, "p90_ms": percentile(connect, 90) * 1e3, "max_ms": max(connect) * 1e3}
    yield Figure(
        "join",
        "whole connect, waiting for the boundary included",
        statistics.median(connect),
        "s",
        None,
        details,
    )
