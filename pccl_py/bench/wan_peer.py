"""The processes of `bench wan`: a master and peers, each in a namespace of the emulator."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from ..communicator import Communicator
from . import namespace
from .peers import CONNECT_S, MasterHost, Peer
from .tensors import fill, holds, sum_of, tile


class WanMaster(MasterHost):
    """In the namespace behind `path`; nobody else is in this network, so it takes no secret."""

    def __init__(self, path: str, address: str, secret_file: str | None = None, **settings: Any) -> None:
        namespace.enter_path(path)
        listen, insecure = f"{address}:0", secret_file is None
        super().__init__(None, listen=listen, insecure=insecure, secret_file=secret_file, **settings)


class WanPeer(Peer):
    """Reduces out of place, so that every operation is like the first, and checks each result."""

    def __init__(self, path: str, index: int, peers: int, **settings: Any) -> None:
        namespace.enter_path(path)
        super().__init__(os.getpid(), **settings)
        self._index, self._peers = index, peers

    def join(self, address: str, min_islands: int = 1) -> dict[str, Any]:
        began = time.monotonic()
        self._joined = Communicator(
            address,
            insecure=True,
            min_islands=min_islands,
            timeout=CONNECT_S,
            config=self._config,
            **self._path(),
        )
        return {"id": self._joined.id, "began": began, "ended": time.monotonic()}

    def stripes(self) -> int:
        """Connections of the link that has most."""
        return max((peer.link.stripes for peer in self.comm.peers() if peer.link is not None), default=0)

    def prepare(self, size: int) -> None:
        """Tensors of `size` bytes, and what is in them."""
        count = size // 4
        self._array, self._out = np.empty(count, np.float32), np.empty(count, np.float32)
        self._own = tile(self._index, count)
        fill(self._array, self._own)
        self._sum = sum_of(range(self._peers), count)

    def reduce(self) -> dict[str, Any]:
        """When the call began and ended, CPU seconds in between, attempts, and whether all is right."""
        self._out.fill(np.nan)
        began, cpu = time.monotonic(), time.process_time()
        info = self.comm.all_reduce(self._array, out=self._out)
        ended, cpu = time.monotonic(), time.process_time() - cpu
        right = holds(self._out, self._sum) and holds(self._array, self._own)
        told = {"attempts": info.attempts, "to_result": began + info.seconds_to_result}
        return told | {"began": began, "ended": ended, "cpu": cpu, "right": right}
