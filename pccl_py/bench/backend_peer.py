"""The process of one peer in `bench torch`: one torch tensor, reduced by the core, the backend and gloo."""

from __future__ import annotations

import os

from ..torch_backend import register
from .all_reduce_peer import OURS, AllReducePeer
from .timed_peer import Operation

BACKEND = "backend pccl"


class TorchPeer(AllReducePeer):
    """Core and backend share one communicator: two differ by more than what is looked for, as threads and
    memory of each are placed once."""

    def join_backend(self, address: str) -> None:
        """After join_gloo(), whose group is the default one; this one is at the same master."""
        os.environ["PCCL_MASTER"] = address
        register()
        self._backend = self._gloo.new_group(backend="pccl")

    def _operation(self, way: str) -> Operation:
        if way == BACKEND:
            return lambda: self._gloo.all_reduce(self._tensor, group=self._backend)
        if way == OURS:
            member = self._backend.group.member
            return lambda: member.all_reduce(self._tensor)
        return super()._operation(way)


__all__ = ["BACKEND", "OURS", "TorchPeer"]
