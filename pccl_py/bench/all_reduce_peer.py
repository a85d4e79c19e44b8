"""The process of one peer in `bench all_reduce`: the same tensors, reduced by this library and by others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from ..errors import UsageError
from ..shared import empty
from .peers import Peer
from .tensors import TILE, fill, holds, tile

OURS, OURS_OUT, GLOO = "ours in place", "ours out of place", "gloo"


class AllReducePeer(Peer):
    """`prepare` a size, `check` each way to reduce it, then time `block`s of operations."""

    def __init__(self, host: int, index: int, peers: int, **settings: Any) -> None:
        super().__init__(host, **settings)
        self._index, self._peers = index, peers
        self._gloo: Any = None

    def join_gloo(self, store: str) -> str:
        """torch's process group over loopback; `store`: a file to meet in. Returns torch's version."""
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        torch = import_module("torch")
        self._gloo = import_module("torch.distributed")
        self._gloo.init_process_group("gloo", f"file://{store}", rank=self._index, world_size=self._peers)
        return str(torch.__version__)

    def prepare(self, size: int, out: bool, shared: bool = False) -> None:
        """Tensors of `size` bytes, and their contents; `out`: also one for the results. `shared`: in memory
        that the others can map."""
        count = size // 4
        make = empty if shared else np.empty
        self._array = make(count, np.float32)
        self._out = make(count if out else 0, np.float32)
        self._out[:] = 0
        self._own = tile(self._index, count)
        self._sum = sum((tile(i, count) for i in range(self._peers)), np.zeros(min(count, TILE), np.float32))
        self._tensor, self._out_tensor = self._array, self._out
        if self._gloo is not None:
            from_numpy = import_module("torch").from_numpy
            self._tensor, self._out_tensor = from_numpy(self._array), from_numpy(self._out)

    def check(self, way: str) -> bool:
        """Reduces once; whether every element is right."""
        fill(self._array, self._own)
        self._reduce(way)()
        result = self._out if way == OURS_OUT else self._array
        unchanged = way != OURS_OUT or holds(self._array, self._own)
        return unchanged and holds(result, self._sum)

    def block(self, way: str, operations: int) -> dict[str, Any]:
        """Seconds of each of so many operations after one that is not counted, and CPU seconds of all."""
        fill(self._array, self._own)
        reduce = self._reduce(way)
        reduce()
        seconds, cpu = [], time.process_time()
        for _ in range(operations):
            began = time.perf_counter()
            reduce()
            seconds.append(time.perf_counter() - began)
        return {"seconds": seconds, "cpu": time.process_time() - cpu}

    def _reduce(self, way: str) -> Callable[[], object]:
        if way == GLOO:
            return lambda: self._gloo.all_reduce(self._tensor)
        if way == OURS:
            return lambda: self.comm.all_reduce(self._tensor)
        if way == OURS_OUT:
            return lambda: self.comm.all_reduce(self._tensor, out=self._out_tensor)
        raise UsageError(f"{way!r} is no way to reduce")
