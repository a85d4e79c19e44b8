"""Operations of a group on tensors in blocks, one for each rank, as torch has them. Each returns at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..errors import MismatchError, UsageError
from ..tensors import describe
from .group import Group
from .member import ALL_GATHER, ALL_TO_ALL, GATHER, REDUCE_SCATTER, SCATTER
from .pending import Pending
from .reduction import Reduction, reduction_of
from .staged import Tensors, apart, lend_all, one_dtype, packed, spread


def all_gather(group: Group, outputs: Tensors, inputs: Tensors, timeout: float | None = None) -> Pending:
    """Output i: the inputs i of all ranks, one after the other."""
    with group.lock:
        return _in_blocks(group, ALL_GATHER, outputs, inputs, timeout)


def all_gather_lists(
    group: Group, outputs: Sequence[Tensors], inputs: Tensors, timeout: float | None = None
) -> Pending:
    """outputs[i][r]: input i of rank r. The ranks' inputs are equally large."""
    with group.lock:
        for each, own in zip(outputs, inputs, strict=True):
            _check_list(group, each, own, "all_gather")
        rows = [spread(each) for each in outputs]
        flat, pour = [f for f, _ in rows], [p for _, p in rows if p is not None]
        pending = _in_blocks(group, ALL_GATHER, flat, inputs, timeout, then=pour)
        pending.outputs = [tensor for each in outputs for tensor in each]
        return pending


def reduce_scatter(
    group: Group, outputs: Tensors, inputs: Tensors, op: Any, timeout: float | None = None
) -> Pending:
    """Output i: block `rank` of the reduced inputs i."""
    with group.lock:
        reduction = reduction_of(op, one_dtype(inputs, "reduce_scatter"))
        if reduction.name is None:
            return _folded_blocks(group, outputs, inputs, reduction, timeout)
        if reduction.factor is not None:
            inputs = [tensor * reduction.factor for tensor in inputs]
        return _in_blocks(group, REDUCE_SCATTER, outputs, inputs, timeout, reduced=True, op=reduction.name)


def _folded_blocks(
    group: Group, outputs: Tensors, inputs: Tensors, reduction: Reduction, timeout: float | None
) -> Pending:
    rows = [torch.empty(t.numel(), dtype=t.dtype, device=t.device) for t in inputs]

    def fold() -> None:
        for output, row in zip(outputs, rows, strict=True):
            output.detach().copy_(reduction.folded(row.view(group.size, *output.shape)))

    pending = _in_blocks(group, ALL_TO_ALL, rows, inputs, timeout, then=[fold])
    pending.outputs = list(outputs)
    return pending


def gather(
    group: Group, outputs: Tensors | None, own: torch.Tensor, root: int, timeout: float | None = None
) -> Pending:
    """outputs[r], at `root` alone: the tensor of rank r."""
    with group.lock:
        peer = group.peer_of(root)
        if (outputs is not None) != (peer == group.id):
            raise UsageError("gather: pass a list of outputs at the destination, and none elsewhere")
        if outputs is None:
            return _in_blocks(group, GATHER, None, [own], timeout, root=peer)
        _check_list(group, outputs, own, "gather")
        flat, pour = spread(outputs)
        pending = _in_blocks(
            group, GATHER, [flat], [own], timeout, then=[] if pour is None else [pour], root=peer
        )
        pending.outputs = list(outputs)
        return pending


def scatter(
    group: Group, output: torch.Tensor, inputs: Tensors | None, root: int, timeout: float | None = None
) -> Pending:
    with group.lock:
        peer = group.peer_of(root)
        if (inputs is not None) != (peer == group.id):
            raise UsageError("scatter: pass a list of inputs at the source, and none elsewhere")
        if inputs is None:
            return _in_blocks(group, SCATTER, [output], None, timeout, root=peer)
        _check_list(group, inputs, output, "scatter")
        return _in_blocks(group, SCATTER, [output], [packed(inputs)], timeout, root=peer)


def all_to_all(
    group: Group, output: torch.Tensor, own: torch.Tensor, timeout: float | None = None
) -> Pending:
    """Equal blocks."""
    with group.lock:
        return _in_blocks(group, ALL_TO_ALL, [output], [own], timeout)


def all_to_all_uneven(
    group: Group, outputs: Tensors, inputs: Tensors, timeout: float | None = None
) -> Pending:
    """inputs[r] goes to rank r, outputs[r] comes from rank r, of any sizes. Every rank calls it so: all hear
    of all sizes first, and blocks are filled up to the largest one. Raises MismatchError on all ranks where
    one does not send what another expects."""
    with group.lock:
        for side in (inputs, outputs):
            if len(side) != group.size:
                raise UsageError(f"all_to_all: {len(side)} blocks for {group.size} ranks")
        dtype = one_dtype([*inputs, *outputs], "all_to_all")
        block = _largest_block(group, outputs, inputs, timeout)
        filled = torch.zeros((group.size, block), dtype=dtype, device=inputs[0].device)
        landed = torch.empty_like(filled)
        for row, tensor in zip(filled, inputs, strict=True):
            row[: tensor.numel()].copy_(tensor.detach().reshape(-1))

        def pour() -> None:
            for row, tensor in zip(landed, outputs, strict=True):
                tensor.detach().copy_(row[: tensor.numel()].view(tensor.shape))

        pending = _in_blocks(group, ALL_TO_ALL, [landed], [filled], timeout, then=[pour])
        pending.outputs = list(outputs)
        return pending


def _largest_block(group: Group, outputs: Tensors, inputs: Tensors, timeout: float | None) -> int:
    """In elements, of all ranks."""
    own = torch.tensor([t.numel() for t in (*inputs, *outputs)])
    sizes = torch.empty((group.size, own.numel()), dtype=own.dtype)
    all_gather(group, [sizes], [own], timeout).wait()
    sent, expected = sizes[:, : group.size], sizes[:, group.size :].T  # [from, to]
    for source, to in (sent != expected).nonzero().tolist():
        raise MismatchError(
            f"rank {source} calls all_to_all with {int(sent[source, to])} elements for rank {to}, "
            f"which expects {int(expected[source, to])} from it"
        )
    return int(sizes.max())


def _in_blocks(
    group: Group,
    call: int,
    outputs: Tensors | None,
    inputs: Tensors | None,
    timeout: float | None,
    *,
    reduced: bool = False,
    then: Sequence[Callable[[], None]] = (),
    **options: Any,
) -> Pending:
    sources = targets = None
    finish: list[Callable[[], None]] = []
    if inputs is not None:
        sources, _ = lend_all(inputs, "the input", reduced=reduced, written=False)
    if outputs is not None:
        targets, finish = lend_all(outputs, "the output", reduced=reduced)
    if sources is not None and targets is not None:
        sources = [apart(source, targets) for source in sources]
    work = group.blocks(call, sources, targets, timeout, **options)
    return group.keep(Pending(group, work, outputs or [], [*finish, *then]))


def _check_list(group: Group, tensors: Tensors, own: torch.Tensor, what: str) -> None:
    if len(tensors) != group.size:
        raise UsageError(f"{what}: {len(tensors)} tensors in the list for {group.size} ranks")
    for rank, tensor in enumerate(tensors):
        if tensor.numel() != own.numel() or tensor.dtype != own.dtype:
            raise UsageError(
                f"{what}: tensor {rank} of the list is {describe(tensor)}, the own one {describe(own)}: "
                "they must agree"
            )


def reduce_scatter_lists(
    group: Group, outputs: Tensors, lists: Sequence[Tensors], op: Any, timeout: float | None
) -> Pending:
    """Output i: the reduced tensors lists[i][rank] of all ranks."""
    for output, each in zip(outputs, lists, strict=True):
        _check_list(group, each, output, "reduce_scatter")
    flat = [torch.cat([tensor.detach().reshape(-1) for tensor in each]) for each in lists]
    return reduce_scatter(group, outputs, flat, op, timeout)


def all_to_all_split(
    group: Group,
    output: torch.Tensor,
    own: torch.Tensor,
    out_splits: Sequence[int],
    in_splits: Sequence[int],
    timeout: float | None,
) -> Pending:
    """Blocks of so many rows; no splits: of equally many."""
    outputs, inputs = (
        list(torch.split(tensor, list(splits) or tensor.shape[0] // group.size))
        for tensor, splits in ((output, out_splits), (own, in_splits))
    )
    return all_to_all_uneven(group, outputs, inputs, timeout)
