"""What the processes of most measurements serve: the master, and a peer with its communicator."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from ..communicator import Communicator
from ..config import Config
from ..errors import UsageError
from ..master import Master
from . import namespace, transports
from .crew import Crew, Worker, each
from .tensors import Array

CONNECT_S = 60.0


class MasterHost:
    """The master's process. With `default_congestion_control` in a network namespace of its own, where that
    is permitted. `listen`, `insecure`, `secret_file`: as Master takes them. `settings`: fields of Config."""

    def __init__(
        self,
        default_congestion_control: str | None = None,
        listen: str = "127.0.0.1:0",
        insecure: bool = False,
        secret_file: str | None = None,
        **settings: Any,
    ) -> None:
        self._why = ""
        if default_congestion_control is not None:
            try:
                namespace.isolate(default_congestion_control)
            except OSError as error:
                self._why = error.strerror or str(error)
        self._isolated = default_congestion_control is not None and not self._why
        config = Config.load(**settings)
        self._master = Master(listen, insecure=insecure, secret_file=secret_file, config=config)

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

    def loopback_bytes(self) -> int | None:
        """Sent in the namespace; None where others send there too."""
        return namespace.loopback_bytes() if self._isolated else None

    def cpu(self) -> float:
        return time.process_time()

    def status(self) -> dict[str, Any]:
        return self._master.status()


class Peer:
    """A peer's process, in the network namespace of the process `host`. `transport`: one of TRANSPORTS.
    `settings`: fields of Config."""

    def __init__(self, host: int, transport: str = "auto", **settings: Any) -> None:
        namespace.enter(host)
        self._config = Config.load(**settings)
        self._asked_transport = transport
        self._joined: Communicator | None = None

    @property
    def comm(self) -> Communicator:
        if self._joined is None:
            raise UsageError("join() first")
        return self._joined

    def join(self, address: str, min_islands: int = 1) -> dict[str, Any]:
        """Returns when it is admitted: its id, and when the call began and ended."""
        began = time.monotonic()
        self._joined = Communicator(
            address, min_islands=min_islands, timeout=CONNECT_S, config=self._config, **self._path()
        )
        return {"id": self._joined.id, "began": began, "ended": time.monotonic()}

    def _path(self) -> dict[str, Any]:
        return transports.arguments(self._asked_transport)

    def _empty(self, count: int, dtype: str = "float32") -> Array:
        """Memory for a tensor that suits the transport."""
        return transports.empty(self._asked_transport, count, dtype)

    def wait_for(self, islands: int) -> int:
        self.comm.wait_for(islands)
        return self.comm.world_size

    def congestion_control(self) -> str:
        """Of this peer's links; several names only if they differ."""
        used = {peer.link.congestion_control for peer in self.comm.peers() if peer.link is not None}
        return "/".join(sorted(used)) or "none"

    def transport(self) -> str:
        """Of this peer's links; several names only if they differ."""
        links = [peer.link for peer in self.comm.peers() if peer.link is not None]
        return transports.used(self._asked_transport, links)

    def cpu(self) -> float:
        """Seconds that all threads of this process have used so far."""
        return time.process_time()

    def leave(self) -> None:
        self.comm.leave()


def start_master(
    crew: Crew, default_congestion_control: str | None = None, **settings: Any
) -> tuple[Worker, dict[str, Any]]:
    """The process, and what it says of itself (MasterHost.describe)."""
    worker = crew.start("the master", partial(MasterHost, default_congestion_control, **settings))
    return worker, worker.call("describe")


def start_peers(
    crew: Crew, kind: type[Peer], count: int, master: tuple[Worker, dict[str, Any]], **settings: Any
) -> list[Worker]:
    """So many processes that serve a `kind`, admitted together."""
    workers = [crew.start(f"peer {i}", partial(kind, master[0].pid, **settings)) for i in range(count)]
    each(workers, "join", address=master[1]["address"], min_islands=count)
    return workers
