"""What the keeper's loop remembers of each connection, and what it tells of its trainers."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from . import messages
from .holding import Holding, Refusal


@dataclass(eq=False, slots=True)
class Connection:
    socket: socket.socket
    pid: int
    born: float
    greeted: bool = False
    holding: Holding | None = None
    refusal: Refusal | None = None  # of a Begin, for the Complete that follows
    waiting: tuple[messages.Attach, list[int], float] | None = None  # for its predecessor, until then
    filling: set[int] = field(default_factory=set)


def told_of(holdings: Mapping[str, Holding], pids: Mapping[str, int]) -> tuple[messages.Trainer, ...]:
    """`pids`: of trainers that are attached."""
    told = []
    for name, holding in holdings.items():
        newest, gone = holding.newest, holding.gone_since
        told.append(
            messages.Trainer(
                trainer=name,
                pid=pids.get(name, 0),
                gone_s=0.0 if gone is None else time.monotonic() - gone,
                step=-1 if newest is None else newest.step,
                age_s=0.0 if newest is None else max(time.time() - newest.time, 0.0),
                bytes=0 if newest is None else newest.bytes,
                memory=holding.memory_bytes,
            )
        )
    return tuple(told)
