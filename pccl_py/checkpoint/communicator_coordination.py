"""Ranks hear of each other over a Communicator that is for their checkpoints alone.

Not the training's: its boundaries refuse to pass while another thread's operation is under way. One master
serves both, as two runs; and a rank that dies is known within its heartbeats, long before a deadline.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import CheckpointError, OperationTimeout, PcclError, PeerLost, UsageError
from ..state.boxed import World
from .coordination import Coordination, Missing

_TAGS = 1 << 31  # channels are given tags from here on


class CommunicatorCoordination(Coordination):
    """`comm`: nobody else uses it, and all ranks are in it (min_islands=). Left to whoever made it."""

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self._peers = [peer.id for peer in sorted(comm.peers(), key=lambda peer: peer.rank)]
        if len({peer.group for peer in comm.peers()}) != 1:
            raise UsageError(
                "this Communicator has several groups: give the checkpoints one with a run_name of its own"
            )
        self.world = World(self._peers.index(comm.id), len(self._peers))
        self._stopped = threading.Event()

    def _exchange(
        self, key: str, words: bytes, timeout_s: float, writers: Sequence[int], readers: Sequence[int]
    ) -> list[bytes]:
        """All ranks gather, readers or not: the ranks of a channel stay in step by that."""
        if self._stopped.is_set():
            raise CheckpointError(f"{key}: this Checkpointer is closed")
        own = words if self.world.rank in writers else b""
        try:
            found = self._gather(key, own, timeout_s)
        except OperationTimeout as error:
            raise Missing(f"{key}: not all ranks came within {timeout_s:g} s: {error}", ()) from error
        except PeerLost as error:
            raise Missing(
                f"{key}: {self._gone()}; earlier checkpoints stay, restart it ({error})", ()
            ) from error
        except PcclError as error:
            raise CheckpointError(f"{key}: {error}") from error
        return [found[rank] for rank in writers]

    def _gather(self, key: str, words: bytes, timeout_s: float) -> list[bytes]:
        self._check_all_here(key)
        tag = _TAGS | zlib.crc32(key.partition("/")[0].encode()) >> 2
        size = self.world.size
        head = np.array([len(words), zlib.crc32(key.encode())], np.int64)
        heads = np.zeros((size, 2), np.int64)
        self._comm.all_gather(head, heads, tag=tag, timeout=timeout_s)
        if (heads[:, 1] != head[1]).any():
            others = np.flatnonzero(heads[:, 1] != head[1]).tolist()
            raise CheckpointError(f"{key}: rank {others} is at another call: all ranks save and load alike")
        most = int(heads[:, 0].max())
        if most == 0:
            return [b""] * size
        row = np.zeros(most, np.uint8)
        row[: len(words)] = np.frombuffer(words, np.uint8)
        rows = np.zeros((size, most), np.uint8)
        self._comm.all_gather(row, rows, tag=tag, timeout=timeout_s)
        return [rows[rank, : heads[rank, 0]].tobytes() for rank in range(size)]

    def _check_all_here(self, key: str) -> None:
        if gone := self._gone():
            raise Missing(f"{key}: {gone}; earlier checkpoints stay, restart it", ())

    def _gone(self) -> str:
        there = {peer.id for peer in self._comm.peers()}
        ranks = [rank for rank, peer in enumerate(self._peers) if peer not in there]
        return f"rank {', '.join(map(str, ranks))} of {self.world.size} is gone" if ranks else ""

    def stop(self) -> None:
        self._stopped.set()
