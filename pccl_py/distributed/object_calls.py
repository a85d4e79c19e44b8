"""torch.distributed's functions on objects, without pickle: see objects.py for what can be sent."""

from __future__ import annotations

from typing import Any

import torch

from . import calls
from .calls import group_rank_of
from .objects import decode, encode
from .world import GroupMember, resolve

_OUTSIDE = GroupMember.NON_GROUP_MEMBER


def _bytes_of(value: Any) -> torch.Tensor:
    return torch.frombuffer(bytearray(encode(value)), dtype=torch.uint8)


def _sizes_of(own: int, group: Any) -> list[int]:
    """Of the encoded objects of all ranks, which have to be known before these can travel."""
    sizes = torch.zeros(resolve(group).size(), dtype=torch.int64)
    calls.all_gather_single(sizes, torch.tensor([own]), group)
    return [int(size) for size in sizes]


def _rows(sizes: list[int]) -> torch.Tensor:
    return torch.empty((len(sizes), max(sizes)), dtype=torch.uint8)


def _padded(data: torch.Tensor, size: int) -> torch.Tensor:
    return torch.nn.functional.pad(data, (0, size - data.numel()))


def _decoded(rows: torch.Tensor, sizes: list[int]) -> list[Any]:
    return [decode(row[:size].numpy().tobytes()) for row, size in zip(rows, sizes, strict=True)]


def all_gather_object(object_list: list[Any], obj: Any, group: Any = None) -> None:
    """object_list[r]: the object of rank r."""
    if group is _OUTSIDE:
        return
    data = _bytes_of(obj)
    sizes = _sizes_of(data.numel(), group)
    rows = _rows(sizes)
    calls.all_gather_single(rows, _padded(data, max(sizes)), group)
    object_list[:] = _decoded(rows, sizes)


def gather_object(
    obj: Any,
    object_gather_list: list[Any] | None = None,
    dst: int | None = None,
    group: Any = None,
    group_dst: int | None = None,
) -> None:
    """`object_gather_list[r]` of rank dst becomes the object of rank r. No pickle."""
    if group is _OUTSIDE:
        return
    root, data = group_rank_of(dst, group_dst, group, "dst"), _bytes_of(obj)
    is_root = resolve(group).rank() == root
    if is_root != (object_gather_list is not None):
        raise ValueError("object_gather_list belongs to the destination, and nowhere else")
    sizes = _sizes_of(data.numel(), group)
    rows = _rows(sizes)
    gather_list = list(rows) if is_root else None
    calls.gather(_padded(data, max(sizes)), gather_list, group=group, group_dst=root)
    if object_gather_list is not None:
        object_gather_list[:] = _decoded(rows, sizes)


def broadcast_object_list(
    object_list: list[Any],
    src: int | None = None,
    group: Any = None,
    device: Any = None,
    group_src: int | None = None,
) -> None:
    """The objects of the source, in place; all lists are equally long."""
    if group is _OUTSIDE:
        return
    root = group_rank_of(src, group_src, group, "src")
    is_root = resolve(group).rank() == root
    data = _bytes_of(object_list) if is_root else torch.empty(0, dtype=torch.uint8)
    size = torch.tensor([data.numel()])
    calls.broadcast(size, group=group, group_src=root)
    if not is_root:
        data = torch.empty(int(size), dtype=torch.uint8)
    calls.broadcast(data, group=group, group_src=root)
    if not is_root:
        object_list[:] = decode(data.numpy().tobytes())


def scatter_object_list(
    scatter_object_output_list: list[Any],
    scatter_object_input_list: list[Any] | None = None,
    src: int | None = None,
    group: Any = None,
    group_src: int | None = None,
) -> None:
    """scatter_object_output_list[0]: the object of the source's list that has this rank."""
    if group is _OUTSIDE:
        return
    if not scatter_object_output_list:
        raise ValueError("scatter_object_output_list needs one place for the object")
    root = group_rank_of(src, group_src, group, "src")
    size, blocks = torch.zeros(2, dtype=torch.int64), None
    if resolve(group).rank() == root:
        if scatter_object_input_list is None:
            raise ValueError("scatter_object_input_list belongs to the source")
        blocks = [_bytes_of(value) for value in scatter_object_input_list]
        size[0] = max(block.numel() for block in blocks)
    calls.broadcast(size, group=group, group_src=root)
    most = int(size[0])
    own_size, own = torch.zeros(1, dtype=torch.int64), torch.empty(most, dtype=torch.uint8)
    calls.scatter(own_size, _sizes(blocks), group=group, group_src=root)
    calls.scatter(own, blocks and [_padded(block, most) for block in blocks], group=group, group_src=root)
    scatter_object_output_list[0] = decode(own[: int(own_size)].numpy().tobytes())


def _sizes(blocks: list[torch.Tensor] | None) -> list[torch.Tensor] | None:
    return blocks and [torch.tensor([block.numel()]) for block in blocks]


def send_object_list(
    object_list: list[Any],
    dst: int | None = None,
    group: Any = None,
    device: Any = None,
    group_dst: int | None = None,
    use_batch: bool = False,
) -> None:
    """Sends plain objects to a rank, which calls recv_object_list with as many. No pickle."""
    if group is _OUTSIDE:
        return
    root, data = group_rank_of(dst, group_dst, group, "dst"), _bytes_of(object_list)
    calls.send(torch.tensor([data.numel()]), group=group, group_dst=root)
    calls.send(data, group=group, group_dst=root)


def recv_object_list(
    object_list: list[Any],
    src: int | None = None,
    group: Any = None,
    device: Any = None,
    group_src: int | None = None,
    use_batch: bool = False,
) -> int:
    """The rank in the world that they came from."""
    if group is _OUTSIDE:
        return -1
    size = torch.zeros(1, dtype=torch.int64)
    source = calls.recv(size, src, group, group_src=group_src)  # of anybody, where none is named
    data = torch.empty(int(size), dtype=torch.uint8)
    calls.recv(data, source, group)
    object_list[:] = decode(data.numpy().tobytes())
    return source
