"""A host is lost: SIGKILL of a trainer and its keeper at the same moment. The other keepers decode what it
had, and a successor on a host without a keeper, whose process is up and waits, restores its tensors."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from .crew import Crew, Worker, each
from .peers import start_master
from .report import Figure
from .snapshot_hosts import hosts
from .units import bytes_text

PEERS, PARITY = 6, 1
RESTORE_GOAL_S = 1.5
WITHIN_S = 180.0


def measure(size: int, repeats: int, transport: str) -> Iterator[Figure]:
    """From the kill, when the successor begins as well, to the last byte in its tensors.

    `size`: of the state of each trainer. In memory, as little as can be: of each host the buffer with its
    snapshot, and twice a fifth of that for parities. Trainers give up their tensors once they took it (their
    digests stay), and the pages of the other buffer, which only a next snapshot would write. On top of that
    come the successor's tensors, what is decoded, and its way to the successor's keeper.
    """
    seconds, joined, right = [], [], True
    with Crew() as crew, hosts(crew, transport) as place:
        master, about = start_master(crew)
        trainers = [place.start(i, master.pid) for i in range(PEERS)]
        each(trainers, "join", address=about["address"], parity=PARITY, founders=PEERS)
        digests = [take_in_turn(trainer, size) for trainer in trainers]
        for turn in range(repeats):
            successor = place.start(turn, master.pid)
            successor.call("make", size=size, within=WITHIN_S)
            killed = place.kill(trainers[turn])
            successor.send("restore", address=about["address"], parity=PARITY)
            place.bury(trainers[turn])
            each(trainers[:turn] + trainers[turn + 1 :], "admit")
            found = successor.receive(WITHIN_S)
            seconds.append(found["ended"] - killed)
            joined.append(found["joined"] - killed)
            right &= found["step"] == 1 and successor.call("digest") == digests[turn]
            successor.call("drop")
            right &= successor.call("is_coded", step=1, within=WITHIN_S)
            trainers[turn] = successor
    name = f"lost host decoded and restored, {PEERS} x {bytes_text(size)}, parity {PARITY}, {transport}"
    details = {"joined_s": statistics.median(joined), "all_s": seconds}
    yield Figure("snapshot", name, statistics.median(seconds), "s", RESTORE_GOAL_S, details, right)


def take_in_turn(trainer: Worker, size: int) -> list[int]:
    """The digest of what it took, which its successor's state is not before it is restored."""
    trainer.call("make", size=size, within=WITHIN_S)
    trainer.call("prepare", within=WITHIN_S)
    trainer.call("change")
    assert trainer.call("take", step=1, within=WITHIN_S)["right"]
    found: list[int] = trainer.call("digest")
    trainer.call("drop")
    trainer.call("drop_spare")
    return found
