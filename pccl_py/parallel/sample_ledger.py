"""Which samples are used, by whom, and which come back: pure arithmetic on state that all peers share.

Samples come in one endless stream: epoch after epoch, each a permutation of the data. The next global batch
is what came back first, and then what is next in the stream, so a batch may span two epochs and always has
the same size. The members that share it are those of the last committed operation, which is the same on all
peers whatever each knows of deaths since; what a member does not deliver comes back. So every sample of an
epoch is used exactly once, whoever dies (ElasWave's consistency of computation).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ..errors import UsageError

Integers = npt.NDArray[np.int64]

# Fields of the state, then `global_batch` places for what came back and as many for members.
_POSITION, _BATCHES, _RETURNED, _MEMBERS, _HEAD = range(5)


class SampleLedger:
    """The state is one int64 array: shared, hashed and healed as it is. It is read anew at every call."""

    def __init__(self, global_batch: int, state: Integers | None = None) -> None:
        self.global_batch = global_batch
        self.state: Integers = np.zeros(self.length(global_batch), np.int64) if state is None else state

    @staticmethod
    def length(global_batch: int) -> int:
        """Of the state."""
        return _HEAD + 2 * global_batch

    @property
    def position(self) -> int:
        """The first sample of the stream that no batch has had yet."""
        return int(self.state[_POSITION])

    @property
    def batches(self) -> int:
        """Global batches committed so far."""
        return int(self.state[_BATCHES])

    @property
    def returned(self) -> list[int]:
        """Positions that were handed out and not used, ascending; never more than one batch of them."""
        return [int(p) for p in self.state[_HEAD : _HEAD + int(self.state[_RETURNED])]]

    @property
    def members(self) -> list[int]:
        """Ids of the peers that share the next batch, in their order."""
        begin = _HEAD + self.global_batch
        return [int(p) for p in self.state[begin : begin + int(self.state[_MEMBERS])]]

    def seat(self, contributors: Sequence[int]) -> None:
        """Who shares from here on: the contributors of an operation that everybody knows as committed.

        More peers than a batch has samples: the first ones; the others wait for a place.
        """
        seated = list(contributors)[: self.global_batch]
        begin = _HEAD + self.global_batch
        self.state[begin:] = 0
        self.state[begin : begin + len(seated)] = seated
        self.state[_MEMBERS] = len(seated)

    def batch(self) -> list[int]:
        """Positions of the next global batch."""
        returned = self.returned
        fresh = self.global_batch - len(returned)
        return returned + list(range(self.position, self.position + fresh))

    def batches_ahead(self) -> Iterator[list[int]]:
        """The batches to come if every member delivers: what may be fetched in advance."""
        batch = self.batch()
        position = batch[-1] + 1 if len(self.returned) < self.global_batch else self.position
        while True:
            yield batch
            batch = list(range(position, position + self.global_batch))
            position += self.global_batch

    def place(self, member: int) -> slice:
        """The part of a batch that is a member's, of nearly equal sizes; empty for who is none."""
        members = self.members
        if member not in members:
            return slice(0, 0)
        rank, world = members.index(member), len(members)
        return slice(rank * self.global_batch // world, (rank + 1) * self.global_batch // world)

    def commit(self, used: npt.NDArray[np.integer]) -> None:
        """The batch is over. used: [global_batch], how many peers used each of its places.

        Raises UsageError where a sample was used twice: peers that share nothing have trained together.
        """
        if used.shape != (self.global_batch,):
            raise UsageError(f"used has shape {used.shape}, a global batch {self.global_batch} samples")
        if used.size and int(used.max()) > 1:
            raise UsageError(
                "a sample was used by two peers: their ledgers differ, put the sampler's state into the "
                "shared state and synchronize it before training"
            )
        batch = np.asarray(self.batch(), np.int64)
        back = np.sort(batch[np.asarray(used) == 0])
        self.state[_POSITION] = max(self.position, int(batch[-1]) + 1 if batch.size else 0)
        self.state[_HEAD : _HEAD + self.global_batch] = 0
        self.state[_HEAD : _HEAD + back.size] = back
        self.state[_RETURNED] = back.size
        self.state[_BATCHES] += 1
