"""The master is killed and started again at its address: operations wait for their commits, and nobody else
notices."""

from __future__ import annotations

import time
from collections.abc import Callable

from .trouble import Trouble

AWAY_S = 1.5
# From when it is started: those who come back late have 0.2 s, and a machine that is busy more.
GOES_ON_S = 3.0


class MasterKills(Trouble):
    name = "master_kills"
    every_s = 4.0

    def plan(self) -> Callable[[], None]:
        away_s = AWAY_S * self.draw.random() ** 2
        return lambda: self._kill(away_s)

    def _kill(self, away_s: float) -> None:
        if self.run.scene.master_away:
            return
        self.happened(f"SIGKILL of the master, away for {away_s:.2f} s")
        self.run.scene.kill_master()
        killed = time.monotonic()
        if self.run.sabotage == "late":  # whoever should restart it sleeps
            self.later(away_s + GOES_ON_S + 3, self.run.scene.start_master)
            self.later(away_s, lambda: self.all_go_on("after the master was to be back", GOES_ON_S))
        else:
            self.later(away_s, lambda: self._start(killed))

    def _start(self, killed: float) -> None:
        self.run.scene.start_master()
        away_ms = (time.monotonic() - killed) * 1e3
        stalls = _Plus(self.measured("stall_by_master_kill_ms"), away_ms)
        self.all_go_on("after the master was back", GOES_ON_S, took_ms=stalls)

    def end(self) -> None:
        if self.run.scene.master_away:
            self.run.scene.start_master()


class _Plus(list[float]):
    """Hands on what is appended, and so much more."""

    def __init__(self, to: list[float], more: float) -> None:
        super().__init__()
        self._to, self._more = to, more

    def append(self, value: float) -> None:
        self._to.append(value + self._more)
