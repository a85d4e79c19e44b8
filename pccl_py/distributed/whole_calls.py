"""Operations of a group on whole tensors, as torch has them. Each returns at once."""

from __future__ import annotations

from typing import Any

import torch

from .group import Group
from .member import ALL_GATHER, ALL_REDUCE, BARRIER, BROADCAST
from .pending import Pending
from .reduction import Reduction, number_of_op, reduction_of
from .staged import Tensors, lend_all, one_dtype, plain_code


def all_reduce(group: Group, tensors: Tensors, op: Any, timeout: float | None = None) -> Pending:
    """In place, the list as one operation."""
    if len(tensors) == 1 and (number := number_of_op(op)) and (code := plain_code(tensors[0])):
        limit = group.timeout_s if timeout is None else timeout
        with group.lock:
            work = group.member.reduce_one(
                tensors[0], code, number, peers=group.peers_expected(), on_loss=group.on_loss, timeout=limit
            )
            return group.keep(Pending(group, work, tensors))
    with group.lock:
        reduction = reduction_of(op, one_dtype(tensors, "all_reduce"))
        if reduction.name is None:
            return _folded(group, tensors, reduction, timeout)
        lent, back = lend_all(tensors, "all_reduce", reduced=True)
        if reduction.factor is not None:
            scaled = [tensor * reduction.factor for tensor in lent]
            work = group.whole(ALL_REDUCE, scaled, lent, timeout, op=reduction.name)
        else:
            work = group.whole(ALL_REDUCE, lent, None, timeout, op=reduction.name)
        return group.keep(Pending(group, work, tensors, back))


def _folded(group: Group, tensors: Tensors, reduction: Reduction, timeout: float | None) -> Pending:
    inputs, _ = lend_all(tensors, "all_reduce", reduced=True, written=False)
    rows = [torch.empty((group.size, *i.shape), dtype=i.dtype, device=i.device) for i in inputs]
    work = group.blocks(ALL_GATHER, inputs, rows, timeout)

    def fold() -> None:
        for tensor, row in zip(tensors, rows, strict=True):
            tensor.detach().copy_(reduction.folded(row.view(tensor.dtype)))

    return group.keep(Pending(group, work, tensors, [fold]))


def reduce(group: Group, tensors: Tensors, root: int, op: Any, timeout: float | None = None) -> Pending:
    """In place at `root`; the others' tensors stay as they are."""
    with group.lock:
        group.peer_of(root)
        if group.rank == root:
            return all_reduce(group, tensors, op, timeout)
        copies = [tensor.detach().clone() for tensor in tensors]
        pending = all_reduce(group, copies, op, timeout)
        pending.outputs = list(tensors)
        return pending


def broadcast(group: Group, tensors: Tensors, root: int, timeout: float | None = None) -> Pending:
    with group.lock:
        peer = group.peer_of(root)
        lent, back = lend_all(tensors, "broadcast", reduced=False)
        work = group.whole(BROADCAST, lent, None, timeout, root=peer)
        return group.keep(Pending(group, work, tensors, back if group.id != peer else ()))


def barrier(group: Group, timeout: float | None = None) -> Pending:
    with group.lock:
        return group.keep(Pending(group, group.whole(BARRIER, [], None, timeout), []))
