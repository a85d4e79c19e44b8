"""torch.distributed's functions on tensors. numpy arrays do as well; async_op=True returns a Work.

src and dst are ranks in the world, group_src and group_dst ranks in the group.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch

from ..errors import OperationTimeout
from . import whole_calls
from .process_group import PcclProcessGroup
from .torch_names import dist
from .torch_work import PcclWork, seconds_of
from .world import GroupMember, get_group_rank, resolve

ReduceOp = dist.ReduceOp
Work = dist.Work
_OUTSIDE = GroupMember.NON_GROUP_MEMBER


def _tensor(value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    raise TypeError(f"a {type(value).__name__} in place of a tensor: pass a torch.Tensor or a numpy array")


def _tensors(values: Sequence[Any]) -> list[torch.Tensor]:
    return [_tensor(value) for value in values]


def _ended(work: PcclWork, async_op: bool) -> PcclWork | None:
    if async_op:
        return work
    work.wait()
    return None


def group_rank_of(world_rank: int | None, group_rank: int | None, group: Any, name: str) -> int:
    """The one rank of the group that the two say; 0 where they say none."""
    if world_rank is not None and group_rank is not None:
        raise ValueError(f"pass {name} or group_{name}, not both")
    if group_rank is not None:
        return group_rank
    if world_rank is None:
        return 0
    return get_group_rank(resolve(group), world_rank)


def all_reduce(
    tensor: Any, op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False
) -> PcclWork | None:
    """`tensor`, of one shape on all ranks, becomes the reduction of all of them, in place."""
    if group is _OUTSIDE:
        return None
    return _ended(resolve(group).allreduce([_tensor(tensor)], op), async_op)


def all_reduce_coalesced(
    tensors: Sequence[Any], op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False
) -> PcclWork | None:
    """all_reduce of several tensors as one operation: of all of them, or of none."""
    if group is _OUTSIDE:
        return None
    return _ended(resolve(group).allreduce(_tensors(tensors), op), async_op)


def reduce(
    tensor: Any,
    dst: int | None = None,
    op: Any = ReduceOp.SUM,
    group: Any = None,
    async_op: bool = False,
    group_dst: int | None = None,
) -> PcclWork | None:
    """`tensor` of rank dst becomes the reduction of all ranks'; the others keep theirs."""
    if group is _OUTSIDE:
        return None
    root = group_rank_of(dst, group_dst, group, "dst")
    return _ended(resolve(group).reduce([_tensor(tensor)], root, op), async_op)


def broadcast(
    tensor: Any,
    src: int | None = None,
    group: Any = None,
    async_op: bool = False,
    group_src: int | None = None,
) -> PcclWork | None:
    """`tensor` of all ranks, of one shape, becomes that of rank src."""
    if group is _OUTSIDE:
        return None
    root = group_rank_of(src, group_src, group, "src")
    return _ended(resolve(group).broadcast([_tensor(tensor)], root), async_op)


def all_gather(
    tensor_list: Sequence[Any], tensor: Any, group: Any = None, async_op: bool = False
) -> PcclWork | None:
    """`tensor_list[r]` becomes the tensor of rank r; one tensor per rank of the group."""
    if group is _OUTSIDE:
        return None
    return _ended(resolve(group).allgather([_tensors(tensor_list)], [_tensor(tensor)]), async_op)


def all_gather_coalesced(
    output_tensor_lists: Sequence[Sequence[Any]],
    input_tensor_list: Sequence[Any],
    group: Any = None,
    async_op: bool = False,
) -> PcclWork | None:
    """all_gather of several tensors: `output_tensor_lists[i][r]` becomes the i-th one of rank r."""
    if group is _OUTSIDE:
        return None
    lists = [_tensors(each) for each in output_tensor_lists]
    return _ended(resolve(group).allgather_coalesced(lists, _tensors(input_tensor_list)), async_op)


def all_gather_single(
    output_tensor: Any, input_tensor: Any, group: Any = None, async_op: bool = False
) -> PcclWork | None:
    """`output_tensor` becomes all ranks' inputs, by rank: joined along dimension 0, or stacked."""
    if group is _OUTSIDE:
        return None
    pair = _tensor(output_tensor), _tensor(input_tensor)
    return _ended(resolve(group).all_gather_single(*pair), async_op)


all_gather_into_tensor = all_gather_single


def reduce_scatter(
    output: Any,
    input_list: Sequence[Any],
    op: Any = ReduceOp.SUM,
    group: Any = None,
    async_op: bool = False,
) -> PcclWork | None:
    """`output` becomes the reduction of all ranks' `input_list[own rank]`."""
    if group is _OUTSIDE:
        return None
    return _ended(resolve(group).reduce_scatter([_tensor(output)], [_tensors(input_list)], op), async_op)


def reduce_scatter_single(
    output: Any, input: Any, op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False
) -> PcclWork | None:
    """`output` becomes the reduction of all ranks' part `own rank` of `input`, along dimension 0."""
    if group is _OUTSIDE:
        return None
    return _ended(resolve(group).reduce_scatter_single(_tensor(output), _tensor(input), op), async_op)


reduce_scatter_tensor = reduce_scatter_single


def gather(
    tensor: Any,
    gather_list: Sequence[Any] | None = None,
    dst: int | None = None,
    group: Any = None,
    async_op: bool = False,
    group_dst: int | None = None,
) -> PcclWork | None:
    """`gather_list[r]` of rank dst becomes the tensor of rank r; the others pass no list."""
    if group is _OUTSIDE:
        return None
    root = group_rank_of(dst, group_dst, group, "dst")
    return _ended(resolve(group).gather(_tensors(gather_list or []), _tensor(tensor), root), async_op)


def scatter(
    tensor: Any,
    scatter_list: Sequence[Any] | None = None,
    src: int | None = None,
    group: Any = None,
    async_op: bool = False,
    group_src: int | None = None,
) -> PcclWork | None:
    """`tensor` becomes `scatter_list[own rank]` of rank src; the others pass no list."""
    if group is _OUTSIDE:
        return None
    root = group_rank_of(src, group_src, group, "src")
    return _ended(resolve(group).scatter(_tensor(tensor), _tensors(scatter_list or []), root), async_op)


def all_to_all_single(
    output: Any,
    input: Any,
    output_split_sizes: list[int] | None = None,
    input_split_sizes: list[int] | None = None,
    group: Any = None,
    async_op: bool = False,
) -> PcclWork | None:
    """Part s of `input` goes to rank s, part r of `output` comes from rank r; equal parts along dimension 0,
    or as long as the split sizes say."""
    if group is _OUTSIDE:
        return None
    pair = _tensor(output), _tensor(input)
    splits = output_split_sizes or [], input_split_sizes or []
    return _ended(resolve(group).all_to_all_single(*pair, *splits), async_op)


def all_to_all(
    output_tensor_list: Sequence[Any],
    input_tensor_list: Sequence[Any],
    group: Any = None,
    async_op: bool = False,
) -> PcclWork | None:
    """`input_tensor_list[s]` goes to rank s, `output_tensor_list[r]` comes from rank r."""
    if group is _OUTSIDE:
        return None
    lists = _tensors(output_tensor_list), _tensors(input_tensor_list)
    return _ended(resolve(group).alltoall(*lists), async_op)


def barrier(
    group: Any = None, async_op: bool = False, device_ids: Any = None, timeout: timedelta | None = None
) -> PcclWork | None:
    """Returns when all ranks of the group have called it."""
    if group is _OUTSIDE:
        return None
    return _ended(resolve(group).barrier(timeout=timeout), async_op)


def monitored_barrier(
    group: Any = None, timeout: timedelta | None = None, wait_all_ranks: bool = False
) -> None:
    """A barrier whose error names who has not come within `timeout`, all of them in any case."""
    if group is _OUTSIDE:
        return
    limit = seconds_of(timeout)
    try:
        whole_calls.barrier(resolve(group).group, limit).wait()
    except OperationTimeout as error:
        raise RuntimeError(f"monitored_barrier: not all ranks came in time. {error}") from error


# ---- between two -----------------------------------------------------------------------------------------


def isend(
    tensor: Any, dst: int | None = None, group: Any = None, tag: int = 0, group_dst: int | None = None
) -> PcclWork | None:
    """Begins to send `tensor` to a rank; wait() of what it returns before it is written again."""
    if group is _OUTSIDE:
        return None
    return resolve(group).send([_tensor(tensor)], group_rank_of(dst, group_dst, group, "dst"), tag)


def irecv(
    tensor: Any, src: int | None = None, group: Any = None, tag: int = 0, group_src: int | None = None
) -> PcclWork | None:
    """Begins to receive into `tensor`, from a rank, or from whomever a message comes first."""
    if group is _OUTSIDE:
        return None
    if src is None and group_src is None:
        return resolve(group).recv_anysource([_tensor(tensor)], tag)
    return resolve(group).recv([_tensor(tensor)], group_rank_of(src, group_src, group, "src"), tag)


def send(
    tensor: Any, dst: int | None = None, group: Any = None, tag: int = 0, group_dst: int | None = None
) -> None:
    """Sends `tensor` to a rank, which calls recv with the same tag and shape."""
    work = isend(tensor, dst, group, tag, group_dst)
    if work is not None:
        work.wait()


def recv(
    tensor: Any, src: int | None = None, group: Any = None, tag: int = 0, group_src: int | None = None
) -> int:
    """The rank in the world that it came from; -1 where the caller is no member."""
    work = irecv(tensor, src, group, tag, group_src)
    if work is None:
        return -1
    work.wait()
    from .rank_tables import global_ranks

    return global_ranks(resolve(group))[work.source_rank()]


class P2POp:
    """One of the messages of batch_isend_irecv; `op` is isend or irecv."""

    def __init__(
        self,
        op: Any,
        tensor: Any,
        peer: int | None = None,
        group: PcclProcessGroup | None = None,
        tag: int = 0,
        group_peer: int | None = None,
    ) -> None:
        if op not in (isend, irecv):
            raise ValueError("op is pccl_py.distributed.isend or irecv")
        self.op, self.tensor, self.group, self.tag = op, tensor, group, tag
        self.group_peer = group_rank_of(peer, group_peer, group, "peer")


def batch_isend_irecv(p2p_op_list: Sequence[P2POp]) -> list[PcclWork]:
    """All begun at once; each is waited for by itself."""
    names = {isend: "group_dst", irecv: "group_src"}
    begun = [
        each.op(each.tensor, group=each.group, tag=each.tag, **{names[each.op]: each.group_peer})
        for each in p2p_op_list
    ]
    return [work for work in begun if work is not None]
