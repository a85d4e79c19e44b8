"""A peer's process that does the same in several ways, in blocks that take turns with each other."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from ..communicator import Communicator
from ..errors import UsageError
from ..work import OpInfo
from .peers import CONNECT_S, Peer

BACKEND = "backend pccl"
Operation = Callable[[], object]


class TimedPeer(Peer):
    """Derived classes say how a way operates, and whether what came out is right."""

    def __init__(self, host: int, index: int, peers: int, **settings: Any) -> None:
        super().__init__(host, **settings)
        self._index, self._peers = index, peers
        self._gloo: Any = None
        self._backend: Any = None  # of torch.distributed
        self._sealed: Communicator | None = None

    @property
    def sealed(self) -> Communicator:
        if self._sealed is None:
            raise UsageError("join_sealed() first")
        return self._sealed

    def join_sealed(self, address: str, secret_file: str, min_islands: int) -> None:
        """A second run beside the first, with a secret: the same operations, encrypted."""
        options: dict[str, Any] = {"min_islands": min_islands, "timeout": CONNECT_S, "config": self._config}
        self._sealed = Communicator(address, secret_file=secret_file, **options, **self._path())

    def join_gloo(self, store: str) -> str:
        """torch's process group over loopback; `store`: a file to meet in. Returns torch's version."""
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        torch = import_module("torch")
        self._gloo = import_module("torch.distributed")
        self._gloo.init_process_group("gloo", f"file://{store}", rank=self._index, world_size=self._peers)
        return str(torch.__version__)

    def join_backend(self, address: str) -> None:
        """After join_gloo(), whose group is the default one; this one is at the same master."""
        secured = {"PCCL_SECRET_FILE": self._config.secret_file, "PCCL_ENCRYPT": self._config.encrypt}
        os.environ |= secured | {"PCCL_MASTER": address, "PCCL_TRANSPORT": self._asked_transport}
        import_module("pccl_py.torch_backend").register()
        self._backend = self._gloo.new_group(backend="pccl")

    def check(self, way: str) -> bool:
        """Operates once; whether every element is right."""
        raise NotImplementedError

    def block(self, way: str, operations: int) -> dict[str, Any]:
        """Seconds of each of so many operations after one that is not counted; those until the results were
        whole, before the commit (none of other libraries); bytes sent and CPU seconds of all."""
        self._fill()
        operate = self._operation(way)
        operate()
        seconds, infos, cpu = [], [], time.process_time()
        for _ in range(operations):
            began = time.perf_counter()
            info = operate()
            seconds.append(time.perf_counter() - began)
            infos.append(info)
        cpu = time.process_time() - cpu
        told = [info for info in infos if isinstance(info, OpInfo)]
        return {
            "seconds": seconds,
            "to_result": [info.seconds_to_result for info in told],
            "bytes_sent": sum(info.bytes_sent for info in told),
            "cpu": cpu,
        }

    def _fill(self) -> None:
        """The contents before a block."""
        raise NotImplementedError

    def _operation(self, way: str) -> Operation:
        """What is timed; it returns OpInfo where it is one operation of this library."""
        raise NotImplementedError
