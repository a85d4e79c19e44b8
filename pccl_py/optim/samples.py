"""The sampler of a run of the family: whose samples a window has, and what its commit says of them.

A global batch of the sampler is what all peers together train on between two departures of a delta. Where
averages overlap, the next batch is handed out before the last one's commit, so that two ledgers take turns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..parallel.elastic_sampler import ElasticSampler
from .fragments import Schedule
from .reduction import SLOTS, Landed


def check(sampler: object, schedule: Schedule, *, overlaps: bool, timed: bool) -> None:
    """Raises UsageError where windows cannot be made of its batches."""
    if sampler is None:
        return
    if not isinstance(sampler, ElasticSampler):
        raise UsageError(f"sampler is a {type(sampler).__name__}; pass a pccl_py.parallel.ElasticSampler")
    if timed:
        raise UsageError("a sampler with local_steps='dynamic' or min_peers: peers need equal windows for it")
    steps = schedule.sync_every // schedule.num_fragments
    if sampler.global_batch < steps:
        raise UsageError(
            f"global_batch={sampler.global_batch} of the sampler is for all peers and the {steps} or more "
            "inner steps until a delta leaves: pass peers * steps * samples of a step"
        )
    if sampler.overlapping != overlaps:
        how = "overlap: make it with" if overlaps else "do not overlap: make it without"
        raise UsageError(f"the averages of this optimizer {how} ElasticSampler(overlapping=True)")


def described(sampler: ElasticSampler | None) -> str:
    """What must be the same on all peers."""
    if sampler is None:
        return ""
    return f" {sampler.samples} samples by {sampler.global_batch}, seed {sampler.seed}, {sampler.shuffle}"


class Samples:
    """`window`: of the run, from 0, as the number of averages that it has applied before that one's."""

    def __init__(self, sampler: ElasticSampler) -> None:
        self.sampler = sampler
        self.shared = {"samples": torch.from_numpy(sampler.state)}

    def of_step(self, peer: int, window: int, step: int, steps: int) -> list[int]:
        """Indices for one of the `steps` of a window, from 0."""
        share = self.sampler.share(peer, self._turn(window))
        return share[step * len(share) // steps : (step + 1) * len(share) // steps]

    def used(self, peer: int, window: int, done: int, steps: int) -> Tensor:
        """float32 [global_batch + SLOTS]: 1 where the sample was in one of `done` steps. See asks()."""
        places = np.zeros(self.sampler.global_batch + SLOTS, np.float32)
        place = self.sampler.ledgers[self._turn(window)].place(peer)
        size = place.stop - place.start
        places[place.start : place.start + size * min(done, steps) // steps] = 1
        return torch.from_numpy(places)

    def nothing(self) -> Tensor:
        """Of who has trained on none."""
        return torch.zeros(self.sampler.global_batch + SLOTS)

    def asks(self, used: Tensor, slot: int) -> None:
        """Marks that this peer will train in later windows, too."""
        used[self.sampler.global_batch + slot] = 1

    def commit(self, landed: Landed, window: int) -> None:
        """Behind the commit: what was not used, or was left out, comes back. Who asked has a share later."""
        assert landed.samples is not None
        turn, size = self._turn(window), self.sampler.global_batch
        sums = landed.samples.numpy()
        used = (sums[:size] > 0.5).astype(np.int32)
        for peer in landed.info.skipped:
            used[self.sampler.ledgers[turn].place(peer)] = 0
        seated = [peer for peer in landed.info.contributors if sums[size + peer % SLOTS] > 0.5]
        self.sampler.commit(used, seated, turn)

    def seat(self, contributors: Sequence[int], windows: int, *, running: bool) -> None:
        """Behind a synchronization. running: the batch of the other turn is being trained on by those who
        have it; else nobody trains yet."""
        turns = [self._turn(windows - 1)] if running else range(len(self.sampler.ledgers))
        for turn in turns:
            self.sampler.seat(contributors, turn)

    def _turn(self, window: int) -> int:
        return window % len(self.sampler.ledgers)
