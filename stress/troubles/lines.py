"""Lines that get worse for a while and better again: slow ones, and such that lose packets."""

from __future__ import annotations

from collections.abc import Callable

from ..house import Network
from .trouble import Trouble

GOES_ON_S = 12.0


class _Lines(Trouble):
    """One link, all links, or the access line of one host."""

    every_s = 4.0

    @property
    def house(self) -> Network:
        house = self.run.scene.house
        assert isinstance(house, Network)
        return house

    def end(self) -> None:
        self.house.calm()


class SlowLines(_Lines):
    name = "slow_lines"

    def plan(self) -> Callable[[], None]:
        a, b = self.order()[:2]
        rate, lasts_s = 0.5 * 2 ** (5 * self.draw.random()), 0.5 + 4 * self.draw.random()
        delay, kind = 1 + 60 * self.draw.random(), self.draw.random()

        def begin() -> None:
            net = self.house.net
            self.happened(f"place {a}: {rate:.1f} Mbit/s, {delay:.0f} ms for {lasts_s:.1f} s")
            if kind < 0.4:
                net.set(a, up_mbit=rate, down_mbit=rate)
            elif kind < 0.8:
                net.set((a, b), one_way=kind < 0.6, rate_mbit=rate, delay_ms=delay, queue_ms=200)
            else:
                net.set(delay_ms=delay / 3, jitter_ms=delay / 5)
            self._promise(f"while place {a} is slow")
            self.later(lasts_s, self._undo)

        return begin

    def _promise(self, why: str) -> None:
        for actor in self.run.scene.actors:
            self.run.scene.excuse(actor)  # one whose heartbeats are late may have to go
        self.all_go_on(why, GOES_ON_S)

    def _undo(self) -> None:
        self.house.calm()
        for actor in self.run.scene.actors:
            self.run.scene.excuse(actor)
        self.all_go_on("once lines are fast again", GOES_ON_S)


class Losses(_Lines):
    name = "losses"

    def plan(self) -> Callable[[], None]:
        a, b = self.order()[:2]
        loss, lasts_s, everywhere = 0.002 * 2 ** (5 * self.draw.random()), 4.0, self.draw.random() < 0.3
        one_way = self.draw.random() < 0.5

        def begin() -> None:
            where = "everywhere" if everywhere else f"between places {a} and {b}"
            self.happened(f"{loss:.1%} of packets are lost {where} for {lasts_s:.1f} s")
            if everywhere:
                self.house.net.set(loss=loss, jitter_ms=1, reorder=True)
            else:
                self.house.net.set((a, b), one_way=one_way, loss=loss)
            self.all_go_on("while packets are lost", GOES_ON_S)
            self.later(lasts_s, self.house.calm)

        return begin
