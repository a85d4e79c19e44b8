"""Where the processes of a run live: on this machine's loopback, or each place in a network of its own."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from .net import Emulator


class House(AbstractContextManager["House"]):
    """Loopback. `insecure`: peers and master listen on more than that, without a secret."""

    insecure = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    @property
    def listen(self) -> str:
        """Where the master listens, without a port."""
        return "127.0.0.1"

    def enter_master(self) -> None:
        """In the master's process, before it does anything."""

    def enter(self, place: int) -> None:
        """In the process of a peer, before it does anything."""

    def transport(self, wanted: str) -> str:
        return wanted


class Network(House):
    """An emulated network; `places`, and one more for the master. Raises NoEmulator."""

    insecure = True

    def __init__(self, places: int, seed: int, rtt_ms: float, rate_mbit: float) -> None:
        self.places = places
        self.rtt_ms, self.rate_mbit = rtt_ms, rate_mbit
        self.net = Emulator(places + 1, rtt_ms=rtt_ms, rate_mbit=rate_mbit, seed=seed)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.net.close()

    def calm(self) -> None:
        """All lines as they were at the beginning; cuts stay."""
        rtt_ms, rate_mbit = self.rtt_ms, self.rate_mbit
        self.net.set(rtt_ms=rtt_ms, rate_mbit=rate_mbit, queue_ms=50, loss=0, jitter_ms=0, reorder=0)
        for place in range(self.places):
            self.net.set(place, up_mbit=0, down_mbit=0)

    @property
    def listen(self) -> str:
        return self.net.addresses[self.places]

    def enter_master(self) -> None:
        self.net.enter(self.places)

    def enter(self, place: int) -> None:
        self.net.enter(place)
        os.environ["PCCL_HOST_LABEL"] = f"place {place}"  # they share a kernel, and must not find out

    def transport(self, wanted: str) -> str:
        return "tcp"
