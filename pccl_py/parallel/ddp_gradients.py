"""DistributedDataParallel's gradients, through its communication hook.

DDP's process group is that of one peer: of one rank, or of the ranks of an island, over which the hook
takes the mean first. DDP's own buckets are only how gradients arrive: it builds them anew after the first
step, so a newcomer's are others.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from .module_gradients import BucketedGradients


class DdpGradients:
    """Registers the hook, which DDP allows once in its life. DDP waits for all futures in its last bucket."""

    def __init__(self, model: DistributedDataParallel, gradients: BucketedGradients) -> None:
        self._model = model
        self._gradients = gradients
        self._group: Any = model.process_group
        self._arrived: list[tuple[torch.futures.Future[Tensor], Tensor, list[Tensor], list[Tensor]]] = []
        # DDP refuses annotations that are texts; a lambda has none.
        model.register_comm_hook(self, lambda own, bucket: own._ready(bucket))

    def no_sync(self) -> AbstractContextManager[None]:
        return self._model.no_sync()

    def reshard(self) -> None:
        """Nothing is sharded."""

    def close(self) -> None:
        """The hook stays: this module's gradients are reduced as long as it lives."""

    @torch.no_grad()
    def _ready(self, bucket: Any) -> torch.futures.Future[Tensor]:
        gradients, flat = self._gradients, bucket.buffer()
        if bucket.index() == 0:
            self._arrived.clear()
            gradients.begin()
        if (size := self._group.size()) > 1:
            dist.all_reduce(flat, group=self._group)
            flat.div_(size)
        parameters, views = bucket.parameters(), bucket.gradients()
        for parameter, view in zip(parameters, views, strict=True):
            gradients.take(gradients.buckets.index_of(parameter), view)
        future: torch.futures.Future[Tensor] = torch.futures.Future()
        self._arrived.append((future, flat, parameters, views))
        if bucket.is_last():
            self._end()
        return future

    def _end(self) -> None:
        """Without a result DDP gets its own gradients back, which the optimizer will not see."""
        buckets, there = self._gradients.buckets, self._gradients.end()
        arrived, self._arrived = self._arrived, []
        for future, flat, parameters, views in arrived:
            if there:
                results = [buckets.result(buckets.index_of(p)) for p in parameters]
                for view, result in zip(views, results, strict=True):
                    view.copy_(result)
            future.set_result(flat)
