"""`bench topology`: update_topology() while nobody waits at the door."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from .crew import Crew, Worker, each
from .peers import Peer, start_master, start_peers
from .report import Figure
from .units import percentile

ASKING_GOAL_S = 0.0003
SETTLE_S = 0.06  # until delayed acknowledgements are sent
QUIET_MS = 600_000  # heartbeats would be counted as messages


class BoundaryPeer(Peer):
    def commit(self) -> int:
        """A commit that tells how many wait."""
        info = self.comm.barrier(scope="run")
        return getattr(info, "waiting", -1)

    def update(self, count: int) -> list[float]:
        """Seconds of each of so many update_topology()."""
        seconds = []
        for _ in range(count):
            began = time.perf_counter()
            self.comm.update_topology()
            seconds.append(time.perf_counter() - began)
        return seconds


def measure(peers: int, calls: int) -> Iterator[Figure]:
    """With a commit before: TCP segments and seconds of the calls. Without one: seconds."""
    with Crew() as crew:
        master = start_master(crew, "reno", heartbeat_ms=QUIET_MS)
        workers = start_peers(crew, BoundaryPeer, peers, master, heartbeat_ms=QUIET_MS)
        yield from _after_commit(master[0], workers, max(3, calls // 100))
        asked = [max(times) for times in zip(*each(workers, "update", count=calls), strict=True)]
    median = statistics.median(asked)
    details = {"peers": peers, "calls": calls, "p99_ms": percentile(asked, 99) * 1e3}
    yield Figure(
        "topology", "update_topology, nobody waiting, all ask the master", median, "s", ASKING_GOAL_S, details
    )


def _after_commit(master: Worker, workers: list[Worker], rounds: int) -> Iterator[Figure]:
    """Each peer calls alone, while the others do not: without a message it returns all the same."""
    segments, seconds = 0, []
    counted = True
    for _ in range(rounds):
        each(workers, "commit")
        time.sleep(SETTLE_S)
        before = master.call("segments")
        for worker in workers:
            seconds += worker.call("update", count=1)
        time.sleep(SETTLE_S)
        after = master.call("segments")
        counted = counted and before is not None
        segments += after - before if counted else 0
    details = {"peers": len(workers), "calls": len(seconds), "median_us": statistics.median(seconds) * 1e6}
    name = "update_topology after a run-wide commit: TCP segments on the host's loopback"
    # Without a namespace of its own others send too; that each call returned alone is what is known then.
    yield Figure("topology", name, segments if counted else None, "", 0 if counted else None, details)
