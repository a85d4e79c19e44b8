"""A joiner's inner optimizer goes on with a member's state: inner_state_on_join="copy".

All peers tell each other who wants one and who has one; then each joiner gets it from one member, and nobody
else waits. The training thread only.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor
from xxhash import xxh3_64_intdigest

from ..errors import Cancelled, CollectiveError
from ..parallel.island_layout import local, parameters_of
from ..parallel.optimizer_shards import OptimizerShards
from .islands import Ranks
from .reduction import SLOTS, Comm
from .residual_heirs import PeerId

logger = logging.getLogger("pccl_py.optim")

Pairs = list[tuple[int, int]]  # ids: who gives, who takes


class InnerCopy:
    """`settle()` while all peers are in a synchronization, `exchange()` after it."""

    def __init__(
        self, comm: Comm, ranks: Ranks, model: torch.nn.Module, inner: torch.optim.Optimizer
    ) -> None:
        self._comm, self._ranks, self._model, self._inner = comm, ranks, model, inner
        self.wanted = False  # by this peer, which has joined
        self._pairs: Pairs = []
        self._shards()  # UsageError where the state of that optimizer cannot travel

    def settle(self, slot: int) -> None:
        """The same pairs on all peers. Raises what the communicator raises; call it again."""
        wants, has = torch.zeros(2, SLOTS)
        wants[slot], has[slot] = int(self.wanted), int(not self.wanted and bool(self._inner.state))
        told = [wants, has]
        while True:
            try:
                info = self._comm.all_reduce(told, "sum", scope="run", on_loss="retry")
                break
            except Cancelled as error:
                logger.warning("%s; asking again", error)
        ids = [peer for peer in info.contributors if int(wants[peer % SLOTS] + has[peer % SLOTS]) == 1]
        self._pairs = pairs(
            [peer for peer in ids if wants[peer % SLOTS]], [peer for peer in ids if has[peer % SLOTS]]
        )

    def exchange(self) -> None:
        """Gives what this peer has to give, or takes what it wants. Where nobody has it, or who gives it
        dies, the state begins with zeros."""
        comm: Any = getattr(self._comm, "comm", self._comm)  # an Island's
        taken = False
        for giver, to in self._pairs:
            try:
                if giver == comm.id:
                    comm.send(self._tensors(), PeerId(to))
                elif to == comm.id:
                    taken = self._take(comm, giver)
            except CollectiveError as error:
                text = "the state of the inner optimizer did not get from peer %d to %d: %s"
                logger.warning(text, giver, to, error)
        self._pairs = []
        if self.wanted:
            self.wanted = False
            if not self._ranks.all(taken):
                self._inner.state.clear()

    def _shards(self) -> OptimizerShards:
        return OptimizerShards(self._inner, {p: name for name, p in parameters_of(self._model).items()})

    def _tensors(self) -> list[Tensor]:
        shards = self._shards()
        tensors = shards.tensors()
        return [_digest(shards, tensors), *(_bytes(t) for t in tensors.values())]

    def _take(self, comm: Any, giver: int) -> bool:
        shards = self._shards()
        tensors = shards.tensors()
        expected = _digest(shards, tensors)
        found = [torch.empty_like(_bytes(t)) for t in tensors.values()]
        digest = torch.zeros_like(expected)
        comm.recv([digest, *found], PeerId(giver))
        if not torch.equal(digest, expected):
            raise CollectiveError("the inner optimizers there and here are built differently")
        for tensor, value in zip(tensors.values(), found, strict=True):
            tensor.copy_(value.view(tensor.dtype).view(tensor.shape))
        shards.take()
        return True


def pairs(wanting: list[int], having: list[int]) -> Pairs:
    """Each that wants one with one that has it, by turns."""
    return [(having[i % len(having)], to) for i, to in enumerate(sorted(wanting))] if having else []


def _digest(shards: OptimizerShards, tensors: dict[str, Tensor]) -> Tensor:
    described = [shards.layout(), *((name, str(t.dtype), list(t.shape)) for name, t in tensors.items())]
    return torch.tensor([xxh3_64_intdigest(repr(described).encode()) >> 1])


def _bytes(tensor: Tensor) -> Tensor:
    return local(tensor).contiguous().reshape(-1).view(torch.uint8)
