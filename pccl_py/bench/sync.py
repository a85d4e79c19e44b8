"""`bench sync`: sync_shared_state of one tensor, in sync and with one float that differs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

from ..shared_state import SharedState
from . import transports
from .crew import Crew, Worker, each
from .peers import Peer, start_master, start_peers
from .report import Figure
from .tensors import fill, tile
from .units import MIB, bytes_text

SIZE = 256 * MIB
IN_SYNC_GOAL_S, ONE_OFF_GOAL_S = 0.043, 0.060


class StatePeer(Peer):
    def prepare(self, size: int) -> None:
        self._array = self._empty(size // 4)
        fill(self._array, tile(0, self._array.size))
        self._state = SharedState({"parameters": self._array})
        self._expected = self._state.digest().hex()

    def sync(self, wrong_at: int | None) -> dict[str, Any]:
        """`wrong_at`: the element that this peer has changed before."""
        if wrong_at is not None:
            self._array[wrong_at] += 1
        began, cpu = time.perf_counter(), time.process_time()
        info = self.comm.sync_shared_state(self._state)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        return {"seconds": seconds, "cpu": cpu, "told": info.bytes_received}

    def bytes_received(self) -> int:
        """Of this peer's data links, everything included."""
        return sum(peer.link.bytes_received for peer in self.comm.peers() if peer.link is not None)

    def id(self) -> int:
        return self.comm.id

    def is_right(self) -> bool:
        return self._state.digest().hex() == self._expected


def measure(peers: int, repeats: int, size: int = SIZE, **settings: Any) -> Iterator[Figure]:
    """Seconds of the slowest peer, and the bytes that travelled."""
    transports.check(settings.get("transport", "auto"))
    with Crew() as crew:
        master = start_master(crew)
        workers = start_peers(crew, StatePeer, peers, master, **settings)
        each(workers, "prepare", size=size)
        workers.sort(
            key=lambda worker: int(worker.call("id"))
        )  # of two contents, that of the smallest id wins
        for name, off, goal in (("in sync", False, IN_SYNC_GOAL_S), ("one float off", True, ONE_OFF_GOAL_S)):
            _sync(workers, off, size, 0)
            before = sum(each(workers, "bytes_received"))
            runs = [_sync(workers, off, size, turn + 1) for turn in range(repeats)]
            received = (sum(each(workers, "bytes_received")) - before) // repeats
            seconds = statistics.median(max(result["seconds"] for result in run) for run in runs)
            right = all(each(workers, "is_right"))
            details = {"peers": peers, "bytes": received, "told": runs[-1][-1]["told"], "cpu_s": _cpu(runs)}
            figure = f"sync_shared_state {bytes_text(size)}, {name}"
            yield Figure("sync", figure, seconds, "s", goal, details, right)
            if not off:
                yield Figure("sync", "bytes between peers in sync", received, "", 0)


def _sync(workers: list[Worker], off: bool, size: int, turn: int) -> list[dict[str, Any]]:
    """The last peer is the one that differs, each time elsewhere."""
    for worker in workers:
        wrong = off and worker is workers[-1]
        worker.send("sync", wrong_at=(turn * 1_000_003) % (size // 4) if wrong else None)
    return [worker.receive() for worker in workers]


def _cpu(runs: list[list[dict[str, Any]]]) -> float:
    return float(statistics.median(sum(result["cpu"] for result in run) for run in runs))
