"""Who leaves politely gives what quantization has held back of its deltas to a peer that stays.

After the last window of the one that leaves, between those two alone; the others train on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..error_feedback import ErrorFeedback
from ..errors import CollectiveError
from .outer_state import Fragment
from .reduction import SLOTS, Comm

logger = logging.getLogger("pccl_py.optim")


class PeerId:
    """As what send() and recv() know a peer by."""

    def __init__(self, number: int) -> None:
        self.id = number


def heirs(contributors: Sequence[int], leaving: set[int]) -> list[tuple[int, int]]:
    """(who leaves, who stays), by turns; the same on all peers. leaving: slots. A slot that two peers share
    says of neither that it leaves."""
    slots = [peer % SLOTS for peer in contributors]
    going = [p for p in sorted(contributors) if p % SLOTS in leaving and slots.count(p % SLOTS) == 1]
    staying = [p for p in sorted(contributors) if p % SLOTS not in leaving]
    return [(peer, staying[i % len(staying)]) for i, peer in enumerate(going)] if staying else []


class ResidualHeirs:
    """`chunk`: elements of the tensors of a fragment, as its reduction has them; None: one tensor."""

    def __init__(
        self, comm: Comm, feedback: ErrorFeedback, fragments: Sequence[Fragment], chunk: int | None
    ) -> None:
        self._comm, self._feedback = comm, feedback
        self._sizes = {str(fragment.number): fragment.size for fragment in fragments}
        self._chunk = chunk

    def settle(self, contributors: Sequence[int], leaving: set[int], weight: float) -> None:
        """Behind the commit that said who leaves. weight: this peer's. Where it fails, what was held back is
        lost, at most half a step of the code for each element."""
        comm: Any = getattr(self._comm, "comm", self._comm)  # an Island's
        for peer, heir in heirs(contributors, leaving):
            try:
                if peer == comm.id:
                    self._give(comm, heir, weight)
                elif heir == comm.id:
                    self._take(comm, peer, weight)
            except CollectiveError as error:
                logger.warning("what peer %d held back did not get to peer %d: %s", peer, heir, error)

    def _give(self, comm: Any, heir: int, weight: float) -> None:
        held = self._held()
        comm.send([torch.tensor([weight], dtype=torch.float64), *_flat(held)], PeerId(heir))
        self._feedback.reset()

    def _take(self, comm: Any, peer: int, weight: float) -> None:
        held = self._held()
        found = [torch.empty_like(part) for part in _flat(held)]
        theirs = torch.zeros(1, dtype=torch.float64)
        comm.recv([theirs, *found], PeerId(peer))
        if weight <= 0:
            return
        for part, value in zip(_flat(held), found, strict=True):
            part.add_(value, alpha=float(theirs) / weight)
        self._feedback.load_state_dict(held)

    def _held(self) -> dict[str, list[Tensor]]:
        """Of all fragments, zeros where nothing was quantized yet."""
        known: dict[str, Any] = self._feedback.state_dict()
        return {name: known.get(name) or self._zeros(size) for name, size in self._sizes.items()}

    def _zeros(self, size: int) -> list[Tensor]:
        return list(torch.split(torch.zeros(size), self._chunk)) if self._chunk else [torch.zeros(size)]


def _flat(held: dict[str, list[Tensor]]) -> list[Tensor]:
    return [part for parts in held.values() for part in parts]
