"""A sampler whose global batches are the same whatever the membership."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from .sample_ledger import Integers, SampleLedger

_SEED_MAX = 2**63


class ElasticSampler:
    """Order, shares and commits of samples under churn (ElasWave's consistency of computation).

        sampler = ElasticSampler(len(data), global_batch=64, seed=7)
        sampler.seat(comm.barrier().contributors)            # after every update_topology() with newcomers
        indices = sampler.share(comm.id)                     # this peer's part of the next global batch
        used = sampler.used(comm.id)                         # reduce it with the gradients, op="sum"
        sampler.commit(used, info.contributors)

    The global batch and the order of samples depend on `seed` alone, not on who is there. Every sample of an
    epoch is used exactly once, also when peers die in the middle of a batch: what they had comes back and is
    the first of the next one. Batches have one size, so one may span two epochs.

    samples       how many there are: indices 0 .. samples - 1
    global_batch  samples per step over all peers; not more than `samples`
    shuffle       each epoch in an order of its own, else ascending
    overlapping   the next batch is handed out before the last one is committed: every other sample of the
                  stream is in a ledger of its own, and batches come from the two by turns. For optimizers
                  whose averages travel while peers train

    Raises UsageError. Needs numpy only; ElasticLoader feeds a torch DataLoader from it. The DiLoCo family
    takes one as `sampler=`: a global batch is a window of all peers then, and seats and commits itself.
    """

    def __init__(
        self,
        samples: int,
        *,
        global_batch: int,
        seed: int = 0,
        shuffle: bool = True,
        overlapping: bool = False,
    ) -> None:
        if samples < 1:
            raise UsageError("there are no samples to train on")
        if not 1 <= global_batch <= samples:
            raise UsageError(f"global_batch={global_batch}: from 1 to the {samples} samples that there are")
        if not 0 <= seed < _SEED_MAX:
            raise UsageError(f"seed={seed}: from 0 to 2**63 - 1")
        self.samples = samples
        self.seed = seed
        self.shuffle = shuffle
        self.overlapping = bool(overlapping)
        length, count = SampleLedger.length(global_batch), 1 + self.overlapping
        self.state: Integers = np.zeros(length * count, np.int64)
        self.ledgers = [SampleLedger(global_batch, part) for part in np.split(self.state, count)]
        self.ledger = self.ledgers[0]
        self._order = lru_cache(maxsize=2)(self._order_of)

    # ---- what is next ----

    @property
    def global_batch(self) -> int:
        """Samples per step, over all peers."""
        return self.ledger.global_batch

    @property
    def step(self) -> int:
        """Global batches that are committed."""
        return sum(ledger.batches for ledger in self.ledgers)

    @property
    def epoch(self) -> int:
        """The epoch of the next batch's oldest sample, from 0."""
        count = len(self.ledgers)
        oldest = (min(ledger.batch()) * count + turn for turn, ledger in enumerate(self.ledgers))
        return min(oldest) // self.samples

    def seat(self, contributors: Sequence[int], turn: int = 0) -> None:
        """Who shares the next batch: ids of the contributors of an operation that has committed. turn, here
        and below: 0, or 1 for the second ledger of an overlapping sampler.

        The same call on all peers, in the same place: after the start, and after a boundary that let somebody
        in. Deaths need no call: commit() hears of them.
        """
        self.ledgers[turn].seat(contributors)

    def share(self, peer: int, turn: int = 0) -> list[int]:
        """Indices of the samples of the next global batch that are this peer's; empty for who has no seat."""
        return [self.index_of(p) for p in self.positions(peer, turn)]

    def positions(self, peer: int, turn: int = 0) -> list[int]:
        """The same as positions in the stream: what random numbers of a sample are to be keyed by."""
        ledger, count = self.ledgers[turn], len(self.ledgers)
        return [p * count + turn for p in ledger.batch()[ledger.place(peer)]]

    def index_of(self, position: int) -> int:
        """The sample at a position of the stream."""
        epoch, place = divmod(position, self.samples)
        return int(self._order(epoch)[place]) if self.shuffle else place

    def seed_of(self, position: int) -> int:
        """A seed for what is random about one sample: the same on whichever peer it lands."""
        return int(np.random.SeedSequence((self.seed, position)).generate_state(1, np.uint64)[0] >> 1)

    # ---- what has happened ----

    def used(self, peer: int, turn: int = 0) -> npt.NDArray[np.int32]:
        """[global_batch] int32: 1 where the sample is this peer's. Summed over all peers, in the operation
        that reduces the gradients or in one that commits after it, it says what commit() wants to know."""
        places = np.zeros(self.global_batch, np.int32)
        places[self.ledgers[turn].place(peer)] = 1
        return places

    def commit(self, used: npt.NDArray[np.integer], contributors: Sequence[int], turn: int = 0) -> None:
        """The batch is trained. used: the sum of all peers' used(); contributors: of that operation."""
        self.ledgers[turn].commit(used)
        self.ledgers[turn].seat(contributors)

    # ---- what is kept: `state`, int64 [4 + 2 * global_batch] for each ledger. Put it into the shared state,
    # so that newcomers are told ----

    def state_dict(self) -> dict[str, object]:
        """For checkpoints: a copy, with what it is only valid for."""
        return {
            "state": self.state.copy(),
            "samples": self.samples,
            "global_batch": self.global_batch,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "overlapping": self.overlapping,
        }

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Raises UsageError where it was saved with other data, another batch size or another order."""
        for name in ("samples", "global_batch", "seed", "shuffle", "overlapping"):
            mine, saved = getattr(self, name), state.get(name, False if name == "overlapping" else None)
            if saved != mine:
                raise UsageError(f"the sampler was saved with {name}={saved}, and this one has {mine}")
        saved_state = np.asarray(state["state"])
        if saved_state.shape != self.state.shape or saved_state.dtype != np.int64:
            raise UsageError("the saved state of the sampler has another length or dtype: it is damaged")
        self.state[:] = saved_state

    def _order_of(self, epoch: int) -> npt.NDArray[np.int64]:
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, epoch))))
        return generator.permutation(self.samples)
