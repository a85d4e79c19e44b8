"""One tensor of a state as a box of a global tensor: what this rank holds of it, and what of that it saves.

Pure but for asking a DTensor where it is. A tensor that several ranks hold is divided among them along its
first dimension, so that all write at once and nobody writes the same bytes twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import StateError, UsageError
from ..values import dtypes

# Below this a tensor is not divided among the ranks that hold it: one of them writes it.
DIVIDED_FROM_BYTES = 1 << 20


class World(NamedTuple):
    """Which of how many ranks saves or loads together with the others.

    beside   the ranks that share what they hold alike, this one too: those who see the same folder. (): all
    """

    rank: int
    size: int
    beside: tuple[int, ...] = ()

    def place(self, ranks: Iterable[int]) -> tuple[int, int]:
        """This rank's place among those of `ranks`, who hold the same, that are beside it."""
        sharing = [rank for rank in ranks if rank in self.beside] if self.beside else list(ranks)
        return sharing.index(self.rank), len(sharing)


@dataclass(frozen=True, slots=True)
class Boxed:
    """`tensor`: this rank's local part, detached, any device. It begins at `start` of the global `shape`.

    `holder` of `holders`: this rank's place among those that hold the same box.
    """

    tensor: Tensor
    dtype: str
    shape: tuple[int, ...]
    start: tuple[int, ...]
    holder: int
    holders: int

    @property
    def local_shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)


def dtype_name(tensor: Tensor, path: str) -> str:
    name = dtypes.of_torch(tensor.dtype)
    if name is None:
        raise StateError(
            f"{path} is {tensor.dtype}, which the format does not have: save it as another dtype"
        )
    return name


def boxed(value: Tensor, path: str, world: World, *, private: bool) -> Boxed:
    """`private`: of this rank alone; otherwise a plain tensor is the same on all ranks of the world.

    Raises StateError for what has no dense memory of its own: sparse, quantized, meta, a DTensor that awaits
    a reduction.
    """
    if _is_dtensor(value):
        return _of_dtensor(value, path, world)
    tensor = value.detach()
    _check_dense(tensor, path)
    holder, holders = (0, 1) if private else world.place(range(world.size))
    shape = tuple(tensor.shape)
    return Boxed(tensor, dtype_name(tensor, path), shape, (0,) * len(shape), holder, holders)


def local_of(value: Any) -> Tensor:
    """The memory of a tensor or a DTensor on this rank."""
    return getattr(value, "_local_tensor", value)  # type: ignore[no-any-return]


def _check_dense(tensor: Tensor, path: str) -> None:
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise StateError(f"{path} is a {tensor.layout} tensor: save its parts as dense tensors")
    if tensor.is_conj() or tensor.is_neg():
        raise StateError(
            f"{path} is a conjugated or negated view, whose memory has other values: save a copy of it "
            "(resolve_conj().resolve_neg()), or what it is a view of"
        )
    if tensor.device.type == "meta":
        raise StateError(f"{path} is on the meta device and has no values: materialize it first")


def _is_dtensor(value: Tensor) -> bool:
    if type(value) is Tensor or type(value) is torch.nn.Parameter:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def _of_dtensor(value: Any, path: str, world: World) -> Boxed:
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    mesh, placements = value.device_mesh, value.placements
    if any(placement.is_partial() for placement in placements):
        raise StateError(f"{path} awaits a reduction ({placements}): redistribute it first")
    coordinate = mesh.get_coordinate()
    if coordinate is None:
        raise UsageError(f"{path}: this rank is not in the tensor's mesh {mesh}")
    local_shape, start = compute_local_shape_and_global_offset(value.shape, mesh, placements)
    tensor = value._local_tensor.detach()
    _check_dense(tensor, path)
    if tuple(tensor.shape) != tuple(local_shape):
        raise StateError(
            f"{path}: the local part is {tuple(tensor.shape)}, {placements} on {mesh} says "
            f"{tuple(local_shape)}"
        )
    holder, holders = _place(mesh, placements, coordinate, world)
    shape = tuple(value.shape)
    return Boxed(tensor, dtype_name(tensor, path), shape, tuple(start), holder, holders)


def _place(mesh: Any, placements: Any, coordinate: Any, world: World) -> tuple[int, int]:
    """Among the ranks of the mesh that hold the same box."""
    from torch.distributed.tensor import Replicate

    holder, holders, alike = 0, 1, []
    for place, size, placement in zip(coordinate, mesh.shape, placements, strict=True):
        free = isinstance(placement, Replicate)
        alike.append(slice(None) if free else place)
        if free:
            holder, holders = holder * size + place, holders * size
    if not world.beside or holders == 1:
        return holder, holders
    ranks = mesh.mesh[tuple(alike)].reshape(-1).tolist()
    return world.place(ranks) if world.rank in ranks else (holder, holders)


def share(box: Boxed, name_number: int) -> tuple[int, int]:
    """Rows [first, last) of the local part's first dimension that this rank writes; (0, 0): nothing.

    A tensor without dimensions has one row. `name_number`: any number that differs from name to name, so that
    small tensors are spread over the holders.
    """
    rows = box.tensor.shape[0] if box.tensor.ndim else 1
    if math.prod(box.tensor.shape) == 0:
        return 0, 0
    if box.holders == 1:
        return 0, rows
    if box.tensor.nbytes < DIVIDED_FROM_BYTES or rows < box.holders:
        return (0, rows) if name_number % box.holders == box.holder else (0, 0)
    return rows * box.holder // box.holders, rows * (box.holder + 1) // box.holders
