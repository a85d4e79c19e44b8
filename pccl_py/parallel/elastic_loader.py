"""A torch DataLoader that follows an ElasticSampler, workers and all."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch.utils.data

from ..errors import UsageError
from .elastic_sampler import ElasticSampler

Key = Callable[[int, int], Any]


class ElasticLoader:
    """This peer's part of each global batch, endlessly; prefetched, and fetched anew when the shares change.

        for step, batch in zip(range(steps), ElasticLoader(data, sampler, lambda: comm.id, num_workers=2)):

    data    a map-style dataset
    peer    a callable that gives this peer's id; it may change when a peer comes back
    keyed   True: data[(index, seed)] is asked for instead of data[index], with the sample's own seed, so that
            augmentation does not depend on who does it
    others  as for torch.utils.data.DataLoader: num_workers, collate_fn, pin_memory, prefetch_factor, ...

    What comes was handed out by the sampler's state at that moment: a batch that was fetched in advance and
    is not this peer's any more (somebody died or came) is dropped, never trained on. A peer without a seat,
    or with none of the samples, gets the batch's first sample and has to give it weight 0: `weight` says so.
    """

    def __init__(
        self,
        data: torch.utils.data.Dataset[Any],
        sampler: ElasticSampler,
        peer: Callable[[], int],
        *,
        keyed: bool = False,
        **options: Any,
    ) -> None:
        if sampler.overlapping:
            raise UsageError("a sampler with overlapping=True belongs to an optimizer, not to a loader")
        if options.get("num_workers", 0) > 0:
            options.setdefault("persistent_workers", True)
        self._sampler = sampler
        self._peer = peer
        self._key: Key = self._with_seed if keyed else self._plain
        self._expected: deque[tuple[int, ...]] = deque()
        self._loader = torch.utils.data.DataLoader(data, batch_sampler=_Ahead(self), **options)
        self.weight = 0

    def __iter__(self) -> Iterator[Any]:
        fetched: Iterator[Any] | None = None
        while True:
            wanted = self._wanted()
            if fetched is None or not self._expected or self._expected[0] != wanted:
                self._expected.clear()
                fetched = iter(self._loader)
            batch = next(fetched)
            self._expected.popleft()
            self.weight = len(self._sampler.positions(self._peer()))
            yield batch

    def ahead(self) -> Iterator[list[Any]]:
        """What the workers are to fetch: shares of the batches to come, if everybody delivers."""
        place = self._sampler.ledger.place(self._peer())
        for batch in self._sampler.ledger.batches_ahead():
            positions = tuple(batch[place] or batch[:1])
            self._expected.append(positions)
            yield [self._key(self._sampler.index_of(p), p) for p in positions]

    def _wanted(self) -> tuple[int, ...]:
        batch = self._sampler.ledger.batch()
        return tuple(batch[self._sampler.ledger.place(self._peer())] or batch[:1])

    @staticmethod
    def _plain(index: int, position: int) -> int:
        return index

    def _with_seed(self, index: int, position: int) -> tuple[int, int]:
        return index, self._sampler.seed_of(position)


class _Ahead:
    """As a batch sampler: it has no length, and starts anew from the sampler's state."""

    def __init__(self, loader: ElasticLoader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[list[Any]]:
        return self._loader.ahead()
