"""`bench memory`: what an all_reduce needs beyond the caller's tensors, counted by the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import transports
from .crew import Crew
from .peers import Peer, start_master, start_peers
from .report import Figure
from .tensors import fill, holds, sum_of, tile
from .units import GIB, MIB, bytes_text

SIZE = GIB
GOAL_BYTES = 64 * MIB


class MemoryPeer(Peer):
    def extra(self, size: int, index: int, peers: int, out: bool) -> dict[str, int | bool]:
        """Bytes: the peak of resident memory during one operation, less what was before, and less the
        tensors of other peers that it mapped: that memory is theirs."""
        array = self._empty(size // 4)
        result = self._empty(size // 4) if out else array
        fill(result, tile(0, array.size))  # so that its pages are there
        own = tile(index, array.size)
        fill(array, own)
        before, shared_before = resident("VmRSS"), resident("RssShmem")
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak counts from here
        self.comm.all_reduce(array, out=result if out else None)
        peak = resident("VmHWM") - (resident("RssShmem") - shared_before)
        expected = sum_of(range(peers), array.size)
        return {"extra": max(0, peak - before), "right": holds(result, expected)}


def measure(peers: int, size: int = SIZE, **settings: Any) -> Iterator[Figure]:
    """The peer that needs most; out of place, which has a goal, and in place, which keeps an undo copy."""
    transports.check(settings.get("transport", "auto"))
    for out in (True, False):
        with Crew() as crew:
            master = start_master(crew)
            workers = start_peers(crew, MemoryPeer, peers, master, **settings)
            for index, worker in enumerate(workers):
                worker.send("extra", size=size, index=index, peers=peers, out=out)
            results = [worker.receive() for worker in workers]
        name = f"extra memory for all_reduce of {bytes_text(size)}, {'out of place' if out else 'in place'}"
        right = all(result["right"] for result in results)
        extra = max(result["extra"] for result in results)
        yield Figure("memory", name, extra, "B", GOAL_BYTES if out else None, {"peers": peers}, right)


def resident(name: str) -> int:
    """VmRSS, VmHWM or RssShmem of this process in bytes."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(f"{name}:"))
    return int(line.split()[1]) << 10
