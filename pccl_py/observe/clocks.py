"""Clocks of different hosts, aligned by commits: the master says each to all peers in one breath, so that the
same commit comes to two of them at the same time, but for the difference of two one-way delays."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from .trace_format import Key, Trace

# Fewer say less than the wall clocks do.
COMMITS_MIN = 3


def commits(trace: Trace) -> dict[Key, int]:
    """When each commit came, by the wall clock of its host, in ns."""
    return {event.key: event.at_ns + trace.wall_ns for event in trace.events if event.kind == "committed"}


def to_common(traces: Sequence[Trace]) -> list[int]:
    """For each trace, ns to add to its events' times: the wall clock of the one with the most commits, or,
    for those that share fewer than COMMITS_MIN with it, their own. So do other runs."""
    seen = [commits(trace) for trace in traces]
    reference = max(range(len(traces)), key=lambda index: len(seen[index]), default=0)
    offsets: list[int] = []
    for index, trace in enumerate(traces):
        shared = seen[index].keys() & seen[reference].keys() if trace.run == traces[reference].run else set()
        gaps = [seen[reference][key] - seen[index][key] for key in shared]
        offsets.append(trace.wall_ns + (int(median(gaps)) if len(gaps) >= COMMITS_MIN else 0))
    return offsets
