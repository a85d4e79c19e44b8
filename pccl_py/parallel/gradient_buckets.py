"""Where the gradients of a model lie while they are reduced: flat buffers, in the order of backward.

The layout follows from the parameters alone, so it is the same on a peer that has just come; DDP's own
buckets are not, as it builds them anew after its first step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import UsageError
from ..shared import empty

_MIB = 1 << 20


@dataclass
class Bucket:
    """inputs: what this peer gives, scaled; outputs: what came out. Both are of one dtype and device.

    missing: parameters whose gradient has not come in this backward pass.
    """

    parameters: list[int]
    inputs: Tensor
    outputs: Tensor
    missing: set[int] = field(default_factory=set)


class GradientBuckets:
    """Buckets of `parameters`, from the last to the first: the first one to be complete in a backward pass
    is bucket 0. Tied parameters come once. `cap_mb`: MiB of a bucket, unless one parameter is larger.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], cap_mb: float) -> None:
        self.parameters = list(parameters)
        self.buckets: list[Bucket] = []
        self._places: dict[int, tuple[Bucket, Tensor, Tensor]] = {}
        for members in plan_buckets(self.parameters, int(cap_mb * _MIB)):
            self._add(members)
        self._numbers = {id(bucket): number for number, bucket in enumerate(self.buckets)}
        self._index = {id(p): i for i, p in enumerate(self.parameters)}
        self.begin()

    def _add(self, members: list[int]) -> None:
        chosen = [self.parameters[i] for i in members]
        size = sum(p.numel() for p in chosen)
        bucket = Bucket(members, buffer_like(chosen[0], size), buffer_like(chosen[0], size))
        self.buckets.append(bucket)
        begin = 0
        for i, p in zip(members, chosen, strict=True):
            end = begin + p.numel()
            views = [flat[begin:end].view(p.shape) for flat in (bucket.inputs, bucket.outputs)]
            self._places[i] = (bucket, views[0], views[1])
            begin = end

    def begin(self) -> None:
        """A backward pass: nothing of it is there."""
        for bucket in self.buckets:
            bucket.missing = set(bucket.parameters)

    def index_of(self, parameter: Tensor) -> int:
        return self._index[id(parameter)]

    def bucket_of(self, index: int) -> tuple[int, Bucket]:
        """The bucket of a parameter, and its number."""
        bucket = self._places[index][0]
        return self._numbers[id(bucket)], bucket

    def put(self, index: int, gradient: Tensor, factor: float) -> None:
        """inputs = gradient * factor"""
        bucket, view, _ = self._places[index]
        scaled(gradient, factor, view)
        bucket.missing.discard(index)

    def put_nothing(self, bucket: Bucket) -> set[int]:
        """Zeros for what has not come; which parameters that is."""
        for index in bucket.missing:
            self._places[index][1].zero_()
        return bucket.missing

    def result(self, index: int) -> Tensor:
        """The reduced gradient of a parameter: a view of its bucket's outputs, valid until the next step."""
        return self._places[index][2]


def plan_buckets(parameters: Sequence[torch.nn.Parameter], cap_bytes: int) -> list[list[int]]:
    """Indices of parameters per bucket: neighbours of one dtype and device, from the last one on."""
    planned: list[list[int]] = []
    size = 0
    for index in reversed(range(len(parameters))):
        p = parameters[index]
        before = parameters[planned[-1][-1]] if planned else None
        same = before is not None and (before.dtype, before.device) == (p.dtype, p.device)
        if not same or size + p.nbytes > cap_bytes:
            planned.append([])
            size = 0
        planned[-1].append(index)
        size += p.nbytes
    return planned


def buffer_like(tensor: Tensor, size: int) -> Tensor:
    """[size] zeros of its dtype on its device; on the host in memory that peers of this host read in place.
    Written to at once: a newcomer's pages are there before its first step, for which the others wait."""
    if tensor.device.type == "cpu":
        found = empty(size, tensor.dtype)
        assert isinstance(found, Tensor)
        return found.zero_()
    return torch.zeros(size, dtype=tensor.dtype, device=tensor.device)


def scaled(tensor: Tensor, factor: float, out: Tensor) -> None:
    """out = tensor * factor. 0 also where the tensor is not finite: who has no sample adds nothing."""
    if factor:
        torch.mul(tensor, factor, out=out)
    else:
        out.zero_()


def trainable(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    """Names and parameters that take part. Raises UsageError where they cannot."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise UsageError("the model has no parameter that requires a gradient")
    for name, p in named:
        if not p.is_floating_point():
            raise UsageError(f"parameter {name!r} is {p.dtype}: gradients of real numbers are reduced")
        if p.device.type == "meta":
            raise UsageError(f"parameter {name!r} is on the meta device and has no values")
    return named
