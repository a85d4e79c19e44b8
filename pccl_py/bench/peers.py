"""What the processes of most measurements serve: the master, and a peer with its communicator."""

from __future__ import annotations

import os
import time
from typing import Any

from ..communicator import Communicator
from ..config import Config
from ..errors import UsageError
from ..master import Master
from . import namespace
from .crew import Crew, Worker

CONNECT_S = 60.0


class MasterHost:
    """The master's process. With `congestion_control` it is in a namespace of its own, where that is permitted."""

    def __init__(self, congestion_control: str | None = None) -> None:
        self._why = ""
        if congestion_control is not None:
            try:
                namespace.isolate(congestion_control)
            except OSError as error:
                self._why = str(error)
        self._isolated = congestion_control is not None and not self._why
        self._master = Master(config=Config.load(**_heartbeat()))

    def describe(self) -> dict[str, Any]:
        """address; isolated, default congestion control and, where it was refused, why."""
        default = namespace.default_congestion_control()
        return {
            "address": self._master.address,
            "isolated": self._isolated,
            "default": default,
            "why": self._why,
        }

    def segments(self) -> int | None:
        """TCP segments sent in the namespace; None where others send there too."""
        return namespace.segments_sent() if self._isolated else None

    def cpu(self) -> float:
        return time.process_time()

    def status(self) -> dict[str, Any]:
        return self._master.status()


class Peer:
    """A peer's process. `host`: the master's process, whose network namespace it enters."""

    def __init__(self, host: int) -> None:
        namespace.enter(host)
        self._joined: Communicator | None = None

    @property
    def comm(self) -> Communicator:
        if self._joined is None:
            raise UsageError("join() first")
        return self._joined

    def join(self, address: str, min_islands: int = 1, congestion_control: str | None = None) -> dict[str, Any]:
        """Returns when it is admitted: its id, and when the call began and ended."""
        config = Config.load(congestion_control=congestion_control, **_heartbeat())
        began = time.monotonic()
        self._joined = Communicator(address, min_islands=min_islands, timeout=CONNECT_S, config=config)
        return {"id": self._joined.id, "began": began, "ended": time.monotonic()}

    def wait_for(self, islands: int) -> int:
        self.comm.wait_for(islands)
        return self.comm.world_size

    def congestion_control(self) -> str:
        """Of this peer's links; several names only if they differ."""
        used = {peer.link.congestion_control for peer in self.comm.peers() if peer.link is not None}
        return "/".join(sorted(used)) or "none"

    def leave(self) -> None:
        self.comm.leave()


def start_master(crew: Crew, congestion_control: str | None = None) -> tuple[Worker, dict[str, Any]]:
    """The process, and what it says of itself (MasterHost.describe)."""
    worker = crew.start("the master", MasterHost, congestion_control)
    return worker, worker.call("describe")


# A measurement that counts messages wants none that only say "I live".
QUIET_ENV = "PCCL_BENCH_HEARTBEAT_MS"


def _heartbeat() -> dict[str, Any]:
    text = os.environ.get(QUIET_ENV)
    return {"heartbeat_ms": int(text)} if text else {}
