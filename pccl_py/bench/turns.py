"""Several ways to do the same take turns in short blocks, in the same processes on the same memory: what
disturbs the machine disturbs all of them.

The time of an operation is that of its slowest peer; the median over operations is told.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .crew import Worker, each
from .units import KIB, MIB, percentile

BLOCK_MAX = 40  # sums in place grow with each operation; so many stay finite
ROUNDS_MIN = 5


@dataclass(frozen=True)
class Timed:
    """One way. `to_result`: median seconds until the slowest peer held the result, before the commit.
    `cpu_seconds`, `bytes_sent`: of all peers, per operation."""

    seconds: float
    cpu_seconds: float
    operations: int
    correct: bool
    p99: float = 0.0
    p25: float = 0.0  # what others on the machine disturb least
    rounds_p25: Sequence[float] = ()  # of each round, in their order
    to_result: float | None = None
    bytes_sent: float = 0.0

    def measures(self, size: int, peers: int, transport: str, congestion_control: str) -> dict[str, Any]:
        """As in every bench's JSON. algbw and busbw in GB/s."""
        algbw = size / self.seconds / 1e9
        return {
            "seconds": self.seconds,
            "algbw": algbw,
            "busbw": algbw * 2 * (peers - 1) / peers,
            "cpu_seconds": self.cpu_seconds,
            "transport": transport,
            "congestion_control": congestion_control,
            "operations": self.operations,
            "correct": self.correct,
        }


def repeats_of(size: int) -> int:
    """So many operations that each way takes some seconds at most."""
    if size <= 64 * KIB:
        return 400
    return 100 if size <= 4 * MIB else 30 if size <= 64 * MIB else 10


def take_turns(workers: Sequence[Worker], ways: Sequence[str], repeats: int) -> dict[str, Timed]:
    """`workers` serve TimedPeers, which are prepared."""
    correct = {way: all(each(workers, "check", way=way)) for way in ways}
    rounds = min(repeats, max(ROUNDS_MIN, -(-repeats // BLOCK_MAX)))
    blocks: dict[str, list[list[dict[str, Any]]]] = {way: [] for way in ways}
    for turn in range(rounds):
        operations = repeats * (turn + 1) // rounds - repeats * turn // rounds
        for way in ways if turn % 2 == 0 else reversed(ways):
            blocks[way].append(each(workers, "block", way=way, operations=operations))
    return {way: _timed(blocks[way], repeats, correct[way]) for way in ways}


def _timed(blocks: list[list[dict[str, Any]]], operations: int, correct: bool) -> Timed:
    """`blocks`: of each round, of each peer."""
    seconds, to_result = (_slowest(blocks, what) for what in ("seconds", "to_result"))
    rounds = [percentile(_slowest([turn], "seconds"), 25) for turn in blocks]
    return Timed(
        seconds=statistics.median(seconds),
        cpu_seconds=sum(block["cpu"] for turn in blocks for block in turn) / operations,
        operations=operations,
        correct=correct,
        p99=percentile(seconds, 99),
        p25=percentile(seconds, 25),
        rounds_p25=rounds,
        to_result=statistics.median(to_result) if to_result else None,
        bytes_sent=sum(block["bytes_sent"] for turn in blocks for block in turn) / operations,
    )


def _slowest(blocks: list[list[dict[str, Any]]], what: str) -> list[float]:
    return [max(times) for turn in blocks for times in zip(*(b[what] for b in turn), strict=True)]
