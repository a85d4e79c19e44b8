"""How busy the machine was with other things meanwhile: no figure means much without it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from .crew import Worker, each

_TICKS = os.sysconf("SC_CLK_TCK")
_IDLE = (3, 4)  # idle and iowait, in the first line of /proc/stat
_GUESTS = 8  # from here on, time that is counted before as well


class OthersCpu:
    """From its creation to `share()`. `workers`: the processes of the measurement; each answers cpu()."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = list(workers)
        self._busy, self._all = _machine()
        self._own = self._own_cpu()

    def share(self) -> float:
        """The part of the machine's CPU time that was neither idle nor ours, 0 to 1."""
        own = self._own_cpu() - self._own
        busy, whole = _machine()
        return max(0.0, min(1.0, (busy - self._busy - own) / max(whole - self._all, 1 / _TICKS)))

    def _own_cpu(self) -> float:
        return time.process_time() + float(sum(each(self._workers, "cpu")))


def _machine() -> tuple[float, float]:
    """Seconds since boot that all cores together were busy, and all seconds."""
    with open("/proc/stat") as file:
        ticks = [int(word) for word in file.readline().split()[1 : _GUESTS + 1]]
    whole = sum(ticks)
    return (whole - sum(ticks[i] for i in _IDLE)) / _TICKS, whole / _TICKS
