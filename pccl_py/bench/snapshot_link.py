"""The same over emulated links of 1 Gbit/s, where what is sent decides: first the other keepers decode what a
lost host had, for one of them; then a successor that comes up later, on a host without a keeper, restores it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from ..snapshot import ask
from ..snapshot.decide import PAUSE_MS
from . import wan
from .crew import Crew, WorkerFailed, each
from .report import Figure
from .snapshot_hosts import hosts
from .snapshot_lost import WITHIN_S, take_in_turn
from .units import bytes_text
from .wan_peer import WanMaster

PEERS, PARITY = 3, 1
RATE_MBIT, RTT_MS = 1000.0, 1.0
MTU = 9000  # as between servers; and the emulator, a process beside them all, has fewer packets to move
LINK = RATE_MBIT * 1e6 / 8
SHARE_GOAL = 0.8  # of the link's speed
SETTLED = 2  # times a snapshot's way over a link: by then two that are left hold each other's


def measure(size: int, repeats: int) -> Iterator[Figure]:
    """`size`: of the state of each trainer. Raises CannotMeasure."""
    with _network() as net, Crew() as crew, hosts(crew, "tcp") as place:
        at = PEERS + 1  # the successors' host
        master = crew.start("the master", partial(WanMaster, net.namespaces[PEERS], net.addresses[PEERS]))
        address = master.call("describe")["address"]
        trainers = [place.start(i, net.namespaces[i]) for i in range(PEERS)]
        each(trainers, "join", address=address, parity=PARITY, founders=PEERS, insecure=True)
        digests = [take_in_turn(trainer, size) for trainer in trainers]
        decoded, restored, right = [], [], True
        for _ in range(repeats):
            successor = place.start(0, net.namespaces[at])
            successor.call("make", size=size, within=WITHIN_S)
            killed = place.kill(trainers[0])
            place.bury(trainers[0])
            decoded.append(_until_decoded(0) - killed)
            time.sleep(SETTLED * size / LINK + 1 + PAUSE_MS / 1e3)  # the others code anew what they have
            successor.send("restore", address=address, parity=PARITY, insecure=True)
            each(trainers[1:], "admit")
            found = successor.receive(WITHIN_S)
            restored.append(found["ended"] - found["begun"])
            right &= found["step"] == 1 and successor.call("digest") == digests[0]
            right &= successor.call("is_coded", step=1, within=WITHIN_S)
            trainers[0] = successor
    for what, seconds in (("decoded by others", decoded), ("restored on a new host", restored)):
        median = statistics.median(seconds)
        details = {"share": size / LINK / median, "all_s": seconds}
        name = f"lost host {what}, {PEERS} x {bytes_text(size)}, 1 Gbit/s"
        yield Figure("snapshot", name, median, "s", size / LINK / SHARE_GOAL, details, right)


def _network() -> Any:
    """A namespace for each peer, the master, and the successor."""
    return wan.emulated(PEERS + 2, rtt_ms=RTT_MS, up_mbit=RATE_MBIT, down_mbit=RATE_MBIT, mtu=MTU)


def _until_decoded(number: int) -> float:
    """When another keeper has it, on the system's clock."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        for told in map(ask.summary, ask.sockets()):
            if told is not None and any(one.trainer == f"host{number}" for one in told.trainers):
                return time.monotonic()
        time.sleep(0.005)
    raise WorkerFailed(f"nobody has decoded the snapshot of host{number} within {WITHIN_S:g} s")
