"""`bench heal`: a newcomer takes model and optimizer state from two peers that train, and they go on.

The clock of the newcomer runs from the call of Communicator(), with its model built, until it has the state;
the members' steps are timed meanwhile, and afterwards, with the newcomer: on a host whose cores are all at
work, a step of three peers takes longer than one of two.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..errors import UsageError
from . import transports
from .crew import Crew, each
from .peers import start_master
from .report import Figure
from .units import MIB, bytes_text

SIZE = 100 * MIB  # of parameters; AdamW's state is twice that
BATCH = 192  # steps of some tenths of a second
HEAL_GOAL_S, STEP_GOAL = 0.5, 1.2
MEMBERS = 2


def measure(repeats: int, size: int = SIZE, batch: int = BATCH, **settings: Any) -> Iterator[Figure]:
    """Medians over so many newcomers, one after the other."""
    transports.check(settings.get("transport", "auto"))
    if find_spec("torch") is None:
        raise UsageError("bench heal needs torch: pip install 'pccl-py[torch]'")
    kind = import_module(f"{__package__}.step_peer").TrainingPeer
    waits, heals, normal, ratios, stalls, right = [], [], [], [], [], True
    with Crew() as crew:
        master, about = start_master(crew)
        start = partial(crew.start, "a peer", partial(kind, master.pid, size, batch, **settings))
        members = [start() for _ in range(MEMBERS)]
        each(members, "ready")
        each(members, "enter", address=about["address"], min_islands=MEMBERS)
        each(members, "steps", count=2)
        for _ in range(repeats):
            newcomer = start()
            newcomer.call("ready", value=0.01)
            newcomer.send("enter", address=about["address"])
            for worker in members:
                worker.send("train_until_with", count=MEMBERS + 1)
            entered = newcomer.receive()
            found = [newcomer.call("train_until_with", count=MEMBERS + 1)]
            found += [worker.receive() for worker in members]
            right &= len({result["digest"] for result in found}) == 1
            waits.append(entered["joined"] - entered["began"])
            heals.append(newcomer.call("whole") - entered["began"])
            stalls.append(max(result["boundary"] for result in found[1:]))
            after = [max(t) for t in zip(*each([newcomer, *members], "steps", count=5), strict=True)]
            normal.append(statistics.median(after))
            ratios.append(max(result["worst"] for result in found[1:]) / normal[-1])
            newcomer.call("leave")
            crew.end(newcomer)
            each(members, "steps", count=1)
    details: dict[str, Any] = {"newcomers": repeats, "admission_ms": statistics.median(waits) * 1e3}
    details |= {"state_ms": (statistics.median(heals) - statistics.median(waits)) * 1e3}
    details |= {"max_ms": max(heals) * 1e3}
    name = f"heal {bytes_text(3 * size)}, from the call on"
    yield Figure("heal", name, statistics.median(heals), "s", HEAL_GOAL_S, details, right)
    step = statistics.median(normal)
    details = {"step_ms": step * 1e3, "max": max(ratios), "stall_ms": statistics.median(stalls) * 1e3}
    name = "members' worst step meanwhile, of a normal one with the newcomer"
    yield Figure("heal", name, statistics.median(ratios), "", STEP_GOAL, details, right)
