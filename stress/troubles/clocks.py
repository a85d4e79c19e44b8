"""Wall clocks that jump, of one process or all: nothing but log lines may notice."""

from __future__ import annotations

from collections.abc import Callable

from .. import clock
from .trouble import Trouble

HOUR_S = 3600.0
JUMPS_S = (-30 * 365 * 24 * HOUR_S, -HOUR_S, -3.0, -0.2, 0.2, 3.0, HOUR_S, 30 * 365 * 24 * HOUR_S)
GOES_ON_S = 2.5


class ClockJumps(Trouble):
    name = "clock_jumps"
    every_s = 1.5

    def plan(self) -> Callable[[], None]:
        seconds, place = self.draw.choice(JUMPS_S), self.order()[0]
        who = self.draw.choice(("one", "one", "master", "all"))

        def jump() -> None:
            slots = {"one": [clock.slot_of(place)], "master": [clock.MASTER]}.get(
                who, list(range(clock.SLOTS))
            )
            self.happened(f"wall clocks of {who} ({len(slots)}) jump by {seconds:g} s")
            clock.jump(slots, seconds)
            self.all_go_on("after a wall clock jumped", GOES_ON_S, took_ms=self.measured("after_a_jump_ms"))

        return jump
