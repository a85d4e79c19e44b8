"""Which way the gradients of a model come: by hooks on its parameters, through DDP, or as FSDP2's shards."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from ..errors import UsageError
from .ddp_gradients import DdpGradients
from .elastic_sampler import ElasticSampler
from .fsdp_gradients import FsdpGradients
from .gradient_buckets import GradientBuckets, trainable
from .module_gradients import BucketedGradients, ModuleGradients
from .norm_buffers import NormBuffers
from .step import PARTS_MAX, Step
from .step_card import StepCard


class Gradients(Protocol):
    """Hooks that run a Step in each backward pass."""

    def no_sync(self) -> AbstractContextManager[None]: ...
    def reshard(self) -> None: ...
    def close(self) -> None: ...


def gradients_of(
    model: torch.nn.Module, sampler: ElasticSampler | None, bucket_cap_mb: float
) -> tuple[Gradients, Step]:
    """Raises UsageError for a model that cannot be trained this way."""
    parameters = [p for _, p in trainable(model)]
    norms = NormBuffers(model)
    if any(isinstance(module, FSDPModule) for module in model.modules()):
        for name, p in trainable(model):
            if not isinstance(p, DTensor):
                raise UsageError(f"parameter {name!r} is not sharded: call fully_shard(model) as well")
        step = Step(StepCard(sampler, 0), norms)
        return FsdpGradients(model, parameters, step), step
    if any(isinstance(p, DTensor) for p in parameters):
        raise UsageError("the model has DTensors and no fully_shard(): shard it that way")
    step = Step(StepCard(sampler, len(parameters)), norms)
    buckets = GradientBuckets(parameters, bucket_cap_mb)
    if len(buckets.buckets) > PARTS_MAX:
        raise UsageError(f"{len(buckets.buckets)} buckets; {PARTS_MAX} is the limit: raise bucket_cap_mb")
    bucketed = BucketedGradients(buckets, step)
    if isinstance(model, DistributedDataParallel):
        return DdpGradients(model, bucketed), step
    return ModuleGradients(bucketed), step
