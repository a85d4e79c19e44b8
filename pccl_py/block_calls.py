"""Operations whose tensors are in blocks, one per peer, by rank: all_gather, reduce_scatter, gather ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import arguments
from .arguments import Op, Scope
from .errors import UsageError
from .tensors import Buffer, Operand, Tensor, as_list, buffer, check_disjoint
from .work import OpInfo, Work

# As numbered by csrc/wire/types.hpp.
REDUCE_SCATTER, ALL_GATHER, GATHER, SCATTER, ALL_TO_ALL = 6, 7, 8, 9, 10
NAMES = {
    REDUCE_SCATTER: "reduce_scatter",
    ALL_GATHER: "all_gather",
    GATHER: "gather",
    SCATTER: "scatter",
    ALL_TO_ALL: "all_to_all",
}

Tensors = Tensor | Sequence[Tensor]


class BlockCalls:
    """The operations of Communicator that give each peer a block of its own.

    Block r belongs to the peer with rank r. Tensors are numpy arrays or torch tensors, or lists of them as
    one atomic operation; contiguous, of any shape: only the number of elements counts. Inputs and outputs
    are different memory. Outputs are undefined until the call has returned.

    As ranks move when somebody leaves, a loss is not repeated: PeerLost on all peers, inputs intact; call it
    again with tensors for those who are left. Everything else is as with all_reduce.
    """

    _post: Any  # of Collectives

    def _ids(self) -> list[int]:
        raise NotImplementedError

    @property
    def id(self) -> int:
        raise NotImplementedError

    def all_gather(self, tensor: Tensors, out: Tensors, **options: Any) -> OpInfo | Work:
        """`out`, on every peer: the tensors of all peers one after the other, `world_size` times as large.

        options   tag, scope, timeout, async_op: as all_reduce
        """
        world = len(self._ids())
        return self._in_blocks(ALL_GATHER, tensor, out, (1, world, world), options)

    def reduce_scatter(self, tensor: Tensors, out: Tensors, op: Op = "sum", **options: Any) -> OpInfo | Work:
        """`out`: block `rank` of the sum (avg, prod, min, max) of all peers' tensors, which are `world_size`
        times as large. 16-bit floats are reduced in float32.

        options   tag, scope, timeout, async_op: as all_reduce
        """
        number = arguments.number_of(op, arguments.OPS, "op")
        world = len(self._ids())
        return self._in_blocks(REDUCE_SCATTER, tensor, out, (world, 1, world), options | {"op": number})

    def gather(self, tensor: Tensors, root: int, out: Tensors | None = None, **options: Any) -> OpInfo | Work:
        """`out`, at the peer with rank `root` alone: the tensors of all peers one after the other.

        options   tag, scope, timeout, async_op: as all_reduce
        """
        peer, is_root, world = self._root(root)
        if is_root == (out is None):
            raise UsageError("gather: pass out at the root, and nowhere else")
        return self._in_blocks(GATHER, tensor, out, (1, world, world), options | {"root": peer})

    def scatter(self, tensor: Tensors | None, root: int, out: Tensors, **options: Any) -> OpInfo | Work:
        """`out`: block `rank` of the tensor of the peer with rank `root`; the others pass None.

        options   tag, scope, timeout, async_op: as all_reduce
        """
        peer, is_root, world = self._root(root)
        if is_root == (tensor is None):
            raise UsageError("scatter: pass the tensor at the root, and None elsewhere")
        return self._in_blocks(SCATTER, tensor, out, (world, 1, world), options | {"root": peer})

    def all_to_all(self, tensor: Tensors, out: Tensors, **options: Any) -> OpInfo | Work:
        """Block r of `tensor` goes to rank r, block r of `out` comes from rank r: `world_size` blocks each.

        options   tag, scope, timeout, async_op: as all_reduce
        """
        world = len(self._ids())
        return self._in_blocks(ALL_TO_ALL, tensor, out, (world, world, world), options)

    def _root(self, root: int) -> tuple[int, bool, int]:
        """(its id, whether that is this peer, peers in the group)"""
        ids = self._ids()
        peer = ids[arguments.whole(root, "root", 0, max(0, len(ids) - 1))]
        return peer, peer == self.id, len(ids)

    def _in_blocks(
        self,
        call: int,
        tensors: Tensors | None,
        out: Tensors | None,
        blocks: tuple[int, int, int],
        options: dict[str, Any],
    ) -> OpInfo | Work:
        """`blocks`: of the input, of out, and peers; from one look at the group, which may change any time.
        The core refuses to begin with another number of peers than was checked here."""
        in_blocks, out_blocks, world = blocks
        items = block_operands(NAMES[call], tensors, out, in_blocks, out_blocks)
        known = {"op", "root", "tag", "scope", "timeout", "async_op"}
        if unknown := options.keys() - known:
            raise UsageError(f"{NAMES[call]}: no option {', '.join(sorted(unknown))}")
        scope: Scope = options.pop("scope", "group")
        defaults = {"tag": None, "timeout": None, "async_op": False, "on_loss": "raise"}
        keep = (_kept(tensors), _kept(out))
        posted: OpInfo | Work = self._post(call, items, keep, blocks=world, scope=scope, **defaults | options)
        return posted


def _kept(tensors: Tensors | None) -> Any:
    return tuple(tensors) if isinstance(tensors, list) else tensors


def block_operands(
    what: str, tensors: Tensors | None, out: Tensors | None, in_blocks: int, out_blocks: int
) -> list[Operand]:
    """Checked; `elements` of an operand are those of one block. A side that is None has the address 0."""
    sources = _buffers(what, "the input", tensors, written=False)
    targets = _buffers(what, "out", out, written=True)
    if sources and targets and len(sources) != len(targets):
        raise UsageError(f"{what}: {len(sources)} tensors, {len(targets)} in out: pass one output per input")
    check_disjoint(
        [(b.address, b.bytes) for b in sources + targets],
        [f"{what}: input {i}" for i in range(len(sources))] + [f"out {i}" for i in range(len(targets))],
        set(range(len(sources))),
    )
    items = []
    for index in range(max(len(sources), len(targets))):
        source = sources[index] if sources else None
        target = targets[index] if targets else None
        items.append(_operand(what, source, target, in_blocks, out_blocks))
    return items


def _buffers(what: str, name: str, tensors: Tensors | None, *, written: bool) -> list[Buffer]:
    if tensors is None:
        return []
    return [
        buffer(tensor, f"{what}: {name} {index}", written=written)
        for index, tensor in enumerate(as_list(tensors, name))
    ]


def _operand(
    what: str, source: Buffer | None, target: Buffer | None, in_blocks: int, out_blocks: int
) -> Operand:
    sizes = []
    for side, blocks, name in ((source, in_blocks, "the input"), (target, out_blocks, "out")):
        if side is None:
            continue
        if side.elements % blocks != 0:
            elements = side.elements
            raise UsageError(f"{what}: {name} has {elements} elements, which do not make {blocks} blocks")
        sizes.append((side.elements // blocks, side.code))
    if len(set(sizes)) > 1:
        (ours, _), (theirs, _) = sizes
        raise UsageError(
            f"{what}: blocks of {ours} and of {theirs} elements, or of two dtypes: they must agree"
        )
    elements, code = sizes[0]
    return Operand(source.address if source else 0, target.address if target else 0, elements, code)
