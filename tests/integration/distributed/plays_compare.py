"""Each public function on gloo, on the backend "pccl" and of pccl_py.distributed: the same values.

Every case is `case(dist, group, rank, size, options) -> outputs`, run on all three with the same inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as torch_dist

import pccl_py.distributed as our_dist

from .gang import say
from .plays_ddp import init

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTS = [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64]
MORE = [torch.uint16, torch.uint32, torch.uint64, torch.bool, torch.complex64, torch.complex128]
ALL = [*FLOATS, *INTS, *MORE]
OPS = ["SUM", "AVG", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR"]
SHAPES = [(), (1,), (7,), (3, 5), (0,), (2, 3, 4), (20_000,)]

Outputs = list[torch.Tensor]


def values(rank: int, shape: Any, dtype: torch.dtype, salt: int = 0) -> torch.Tensor:
    """Small whole numbers, so that sums are exact in every dtype and order."""
    generator = torch.Generator().manual_seed(rank * 100 + salt)
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator) > 0
    drawn = torch.randint(1, 4, shape, generator=generator)
    if dtype.is_complex:
        return torch.complex(drawn.double(), -drawn.double()).to(dtype)
    return drawn.to(dtype)


def all_reduce(d: Any, g: Any, rank: int, size: int, dtype: Any, op: str, shape: Any) -> Outputs:
    tensor = values(rank, shape, dtype)
    d.all_reduce(tensor, getattr(d.ReduceOp, op), group=g)
    return [tensor]


def all_reduce_transposed(d: Any, g: Any, rank: int, size: int) -> Outputs:
    tensor = values(rank, (4, 6), torch.float32).t()
    d.all_reduce(tensor, group=g)
    return [tensor]


def all_reduce_async(d: Any, g: Any, rank: int, size: int) -> Outputs:
    tensors = [values(rank, (5,), torch.float32, salt) for salt in range(4)]
    works = [d.all_reduce(tensor, group=g, async_op=True) for tensor in tensors]
    last = works.pop().get_future().wait()
    for work in works:
        assert work.wait() and work.is_completed()
    return [*tensors, *(last if isinstance(last, list) else [last])]


def all_reduce_coalesced(d: Any, g: Any, rank: int, size: int) -> Outputs:
    tensors = [values(rank, (n,), torch.float32, n) for n in (3, 1, 8)]
    d.all_reduce_coalesced(tensors, group=g)
    return tensors


def reduce(d: Any, g: Any, rank: int, size: int, dtype: Any, op: str) -> Outputs:
    tensor = values(rank, (6,), dtype)
    root = size - 1
    d.reduce(tensor, root, getattr(d.ReduceOp, op), group=g)
    return [tensor] if rank == root else []  # undefined elsewhere


def broadcast(d: Any, g: Any, rank: int, size: int, dtype: Any, root: int) -> Outputs:
    tensor = values(rank, (3, 3), dtype)
    d.broadcast(tensor, root % size, group=g)
    return [tensor]


def all_gather(d: Any, g: Any, rank: int, size: int, dtype: Any, shape: Any) -> Outputs:
    outputs = [torch.zeros(shape, dtype=dtype) for _ in range(size)]
    d.all_gather(outputs, values(rank, shape, dtype), group=g)
    return outputs


def all_gather_views(d: Any, g: Any, rank: int, size: int) -> Outputs:
    """Into the rows of one tensor, without copies, and into its columns."""
    rows, columns = torch.zeros(size, 4), torch.zeros(4, size)
    d.all_gather(list(rows.unbind(0)), values(rank, (4,), torch.float32), group=g)
    d.all_gather(list(columns.unbind(1)), values(rank, (4,), torch.float32), group=g)
    return [rows, columns]


def all_gather_coalesced(d: Any, g: Any, rank: int, size: int) -> Outputs:
    outputs = [[torch.zeros(n) for n in (3, 1, 4)] for _ in range(size)]
    d.all_gather_coalesced(outputs, [values(rank, (n,), torch.float32, n) for n in (3, 1, 4)], group=g)
    return [tensor for each in outputs for tensor in each]


def all_gather_single(d: Any, g: Any, rank: int, size: int, dtype: Any) -> Outputs:
    flat = torch.zeros(size * 4, dtype=dtype)
    d.all_gather_into_tensor(flat, values(rank, (4,), dtype), group=g)
    return [flat]


def all_gather_in_place(d: Any, g: Any, rank: int, size: int) -> Outputs:
    whole = torch.zeros(size * 3)
    own = whole[rank * 3 : rank * 3 + 3]
    own += rank + 1.0
    d.all_gather_into_tensor(whole, own, group=g)
    return [whole]


def reduce_scatter(d: Any, g: Any, rank: int, size: int, dtype: Any, op: str) -> Outputs:
    output = torch.zeros(5, dtype=dtype)
    d.reduce_scatter(
        output, [values(rank, (5,), dtype, r) for r in range(size)], getattr(d.ReduceOp, op), group=g
    )
    return [output]


def reduce_scatter_single(d: Any, g: Any, rank: int, size: int, dtype: Any, op: str) -> Outputs:
    output = torch.zeros(5, dtype=dtype)
    d.reduce_scatter_tensor(output, values(rank, (size * 5,), dtype), getattr(d.ReduceOp, op), group=g)
    return [output]


def gather(d: Any, g: Any, rank: int, size: int, dtype: Any) -> Outputs:
    root = size // 2
    outputs = [torch.zeros(3, dtype=dtype) for _ in range(size)] if rank == root else None
    d.gather(values(rank, (3,), dtype), outputs, dst=root, group=g)
    return outputs or []


def scatter(d: Any, g: Any, rank: int, size: int, dtype: Any) -> Outputs:
    root = size - 1
    inputs = [values(rank, (3,), dtype, r) for r in range(size)] if rank == root else None
    output = torch.zeros(3, dtype=dtype)
    d.scatter(output, inputs, src=root, group=g)
    return [output]


def all_to_all_single(d: Any, g: Any, rank: int, size: int, dtype: Any) -> Outputs:
    output = torch.zeros(size * 2, 3, dtype=dtype)
    d.all_to_all_single(output, values(rank, (size * 2, 3), dtype), group=g)
    return [output]


def all_to_all_uneven(d: Any, g: Any, rank: int, size: int, dtype: Any) -> Outputs:
    """Rank r sends r + q rows to rank q."""
    sent, got = [rank + q for q in range(size)], [q + rank for q in range(size)]
    output = torch.zeros(sum(got), 2, dtype=dtype)
    d.all_to_all_single(output, values(rank, (sum(sent), 2), dtype), got, sent, group=g)
    return [output]


def all_to_all(d: Any, g: Any, rank: int, size: int, dtype: Any) -> Outputs:
    outputs = [torch.zeros(2, dtype=dtype) for _ in range(size)]
    d.all_to_all(outputs, [values(rank, (2,), dtype, r) for r in range(size)], group=g)
    return outputs


def all_to_all_lists(d: Any, g: Any, rank: int, size: int) -> Outputs:
    """Of sizes that gloo cannot: checked here."""
    outputs = [torch.zeros(rank + 1) for _ in range(size)]
    inputs = [values(rank, (r + 1,), torch.float32, r) for r in range(size)]
    d.all_to_all(outputs, inputs, group=g)
    for r, output in enumerate(outputs):
        assert torch.equal(output, values(r, (rank + 1,), torch.float32, rank))
    return outputs


def barrier(d: Any, g: Any, rank: int, size: int) -> Outputs:
    d.barrier(group=g)
    return []


def between_two(d: Any, g: Any, rank: int, size: int, dtype: Any) -> Outputs:
    """Around the ring, in two tags, the second first; then one blocking message."""
    right, left = (rank + 1) % size, (rank - 1) % size
    if size == 1:
        return []
    got = [torch.zeros(4, dtype=dtype) for _ in range(3)]
    works = [d.isend(values(rank, (4,), dtype, tag), right, group=g, tag=tag) for tag in (5, 6)]
    works += [d.irecv(got[0], left, group=g, tag=6), d.irecv(got[1], left, group=g, tag=5)]
    for work in works:
        work.wait()
    if rank % 2 == 0 and right != 0:
        d.send(values(rank, (4,), dtype), right, group=g)
    elif rank % 2:
        assert d.recv(got[2], left, group=g) == left
    return got


def batch(d: Any, g: Any, rank: int, size: int) -> Outputs:
    if size == 1:
        return []
    got = torch.zeros(3)
    ops = [
        d.P2POp(d.isend, values(rank, (3,), torch.float32), (rank + 1) % size, g),
        d.P2POp(d.irecv, got, (rank - 1) % size, g),
    ]
    for work in d.batch_isend_irecv(ops):
        work.wait()
    return [got]


def from_anybody(d: Any, g: Any, rank: int, size: int) -> Outputs:
    """Rank 0 takes two messages of each of the others, whoever comes first, and answers."""
    ranks = d.get_process_group_ranks(g)
    if rank:
        for tag in (3, 4):
            d.send(values(rank, (3,), torch.float32, tag), ranks[0], group=g, tag=tag)
        d.recv(got := torch.zeros(1), ranks[0], group=g)
        return [got]
    seen = {}
    for tag in (3, 4):
        for _ in range(1, size):
            got = torch.zeros(3)
            seen[d.recv(got, group=g, tag=tag), tag] = got
    for source in ranks[1:]:
        d.send(torch.full((1,), float(source)), source, group=g)
    return [seen[key] for key in sorted(seen)] + [torch.tensor(sorted(seen))]


def objects_between_two(d: Any, g: Any, rank: int, size: int) -> Outputs:
    if size < 2 or rank > 1:
        return []
    listed = [{"of": rank}, "x" * 9] if rank else [None, None]
    if rank:
        d.send_object_list(listed, 0, group=g)
    else:
        source = None if d is our_dist else 1  # torch's own function cannot without a name
        assert d.recv_object_list(listed, source, group=g) == 1
    return [torch.frombuffer(bytearray(repr(listed).encode()), dtype=torch.uint8)]


def objects(d: Any, g: Any, rank: int, size: int) -> Outputs:
    mine = {"rank": rank, "text": "x" * rank, "nested": [1.5, None, (True, b"ab")]}
    everybody: list[Any] = [None] * size
    d.all_gather_object(everybody, mine, group=g)
    listed = [mine, rank] if rank == 0 else [None, None]
    d.broadcast_object_list(listed, src=0, group=g)
    gathered: list[Any] | None = [None] * size if rank == 0 else None
    d.gather_object(mine, gathered, dst=0, group=g)
    scattered = [None]
    d.scatter_object_list(scattered, [{"to": r} for r in range(size)] if rank == 0 else None, src=0, group=g)
    text = repr((everybody, listed, gathered, scattered)).encode()
    return [torch.frombuffer(bytearray(text), dtype=torch.uint8)]


def cases() -> Iterator[tuple[Callable[..., Outputs], dict[str, Any]]]:
    for dtype in ALL:
        yield from ((all_reduce, {"dtype": dtype, "op": op, "shape": (3, 5)}) for op in OPS)
        for op in ("SUM", "MAX"):
            yield from (
                (case, {"dtype": dtype, "op": op}) for case in (reduce_scatter, reduce_scatter_single)
            )
        yield reduce, {"dtype": dtype, "op": "SUM"}
        yield from ((broadcast, {"dtype": dtype, "root": root}) for root in (0, 1))
        yield all_gather, {"dtype": dtype, "shape": (3, 2)}
        moving = (all_gather_single, gather, scatter, all_to_all_single, all_to_all_uneven, all_to_all)
        yield from ((case, {"dtype": dtype}) for case in moving)
    for shape in SHAPES:
        yield all_reduce, {"dtype": torch.float32, "op": "SUM", "shape": shape}
        yield all_gather, {"dtype": torch.float32, "shape": shape}
    for op in ("AVG", "PRODUCT", "MIN", "BXOR"):
        dtype = torch.int32 if op == "BXOR" else torch.float32
        yield reduce_scatter_single, {"dtype": dtype, "op": op}
    for case in (all_reduce_transposed, all_reduce_async, all_reduce_coalesced, all_gather_views):
        yield case, {}
    yield all_gather_coalesced, {}
    yield from ((case, {}) for case in (all_gather_in_place, all_to_all_lists, barrier, batch, objects))
    yield from ((case, {}) for case in (from_anybody, objects_between_two))
    yield from ((between_two, {"dtype": dtype}) for dtype in (torch.float32, torch.bool, torch.bfloat16))


def outcome(case: Callable[..., Outputs], *args: Any, **options: Any) -> Outputs | str:
    try:
        return case(*args, **options)
    except Exception as error:  # of arguments: all ranks raise it
        return f"{type(error).__name__}: {error}"


def on_gloo(
    case: Callable[..., Outputs], d: Any, g: Any, rank: int, size: int, options: dict[str, Any]
) -> Outputs | str:
    """Its outcome; for a dtype that gloo has not, and averages of integers, from one that it has."""
    dtype, wide = options.get("dtype"), options.get("dtype")
    if dtype in (torch.int16, torch.uint16, torch.uint32, torch.uint64):
        wide = torch.int64  # small whole numbers are exact in both
    if options.get("op") == "AVG" and dtype in INTS + MORE[:3]:
        wide = torch.float64
    result = outcome(case, d, g, rank, size, **(options | {"dtype": wide} if dtype else options))
    return result if isinstance(result, str) or wide == dtype else [tensor.to(dtype) for tensor in result]


def compare(*, rank: int, ranks: int, path: str) -> None:
    """For world sizes 1 to `ranks`: says what differs, and what one of the backends cannot do."""
    init("gloo", rank, ranks, path)
    store = torch_dist.FileStore(path + "-own", ranks)
    our_dist.init_process_group(store=store, rank=rank, world_size=ranks)
    count = 0
    for size in range(1, ranks + 1):
        members = list(range(size))
        doors = [
            (torch_dist, torch_dist.new_group(members, backend="gloo")),
            (torch_dist, torch_dist.new_group(members, backend="pccl")),
            (our_dist, our_dist.new_group(members)),
        ]
        if rank >= size:
            continue
        for case, options in cases():
            results = [on_gloo(case, *doors[0], rank, size, options)]
            results += [outcome(case, d, g, rank, size, **options) for d, g in doors[1:]]
            named = {key: str(value) for key, value in options.items()}
            judge(case.__name__, size, named, *results)
            count += 1
    our_dist.destroy_process_group()
    torch_dist.destroy_process_group()
    say(cases=count)


def judge(name: str, size: int, options: dict[str, str], gloo: Any, backend: Any, own: Any) -> None:
    for door, result in (("backend", backend), ("functions", own)):
        if isinstance(result, str):
            say(cannot=name, door=door, size=size, options=options, error=result, gloo=isinstance(gloo, str))
        elif isinstance(gloo, str):
            say(gloo_cannot=name, options=options, error=gloo[:100])
        elif not same(result, gloo):
            say(
                differs=name,
                door=door,
                size=size,
                options=options,
                ours=repr(result)[:200],
                gloo=repr(gloo)[:200],
            )
    if isinstance(gloo, str) and not isinstance(backend, str) and not isinstance(own, str):
        if not same(backend, own):
            say(differs=name, door="each other", size=size, options=options, ours=repr(own)[:200], gloo="")


def same(ours: Outputs, theirs: Outputs) -> bool:
    return len(ours) == len(theirs) and all(
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.allclose(a.to(torch.complex128), b.to(torch.complex128))
        for a, b in zip(ours, theirs, strict=True)
    )
