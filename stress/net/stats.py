"""What the emulator's program counts, since it began."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class LinkStats:
    """One direction of a link. `packets`, `bytes` (of IP): handed over. `lost`: by chance. `dropped`: by a
    full queue. `cut`: by a cut, on their way included."""

    packets: int
    bytes: int
    lost: int
    dropped: int
    cut: int


@dataclass(frozen=True)
class NetworkStats:
    """`links[a, b]`: from a to b. `on_their_way`: packets. `refused`: by a receiver's device. `late_mean_us`,
    `late_max_us`: from when a packet was due to when it was handed over; large where the machine is too busy
    to be this network."""

    links: dict[tuple[int, int], LinkStats]
    on_their_way: int
    refused: int
    late_mean_us: float
    late_max_us: float


def parse(lines: Iterable[str]) -> NetworkStats:
    links: dict[tuple[int, int], LinkStats] = {}
    network = [0, 0, 0, 0]
    for line in lines:
        kind, *words = line.split()
        numbers = [int(word) for word in words]
        if kind == "link":
            links[numbers[0], numbers[1]] = LinkStats(*numbers[2:])
        else:
            network = numbers
    on_their_way, refused, mean, worst = network
    return NetworkStats(links, on_their_way, refused, mean / 1e3, worst / 1e3)
