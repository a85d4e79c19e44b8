"""The process of one peer in `bench torch`: one torch tensor, reduced by the core, the backend and gloo."""

from __future__ import annotations

from .all_reduce_peer import OURS, AllReducePeer
from .timed_peer import BACKEND, Operation


class TorchPeer(AllReducePeer):
    """Core and backend share one communicator: two differ by more than what is looked for, as threads and
    memory of each are placed once."""

    def _operation(self, way: str) -> Operation:
        if way == BACKEND:
            return lambda: self._gloo.all_reduce(self._tensor, group=self._backend)
        if way == OURS:
            member = self._backend.group.member
            return lambda: member.all_reduce(self._tensor)
        return super()._operation(way)


__all__ = ["BACKEND", "OURS", "TorchPeer"]
