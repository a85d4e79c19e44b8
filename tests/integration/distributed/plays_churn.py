"""Deaths, newcomers and bad input outside of training: what the ranks of test_churn.py do."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import pccl_py
import pccl_py.distributed as our_dist
from pccl_py.distributed.world import resolve
from tests.integration.greetings import greeting_of

from .gang import say
from .plays_ddp import init


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def caught(call: Callable[..., Any], *args: Any, **options: Any) -> dict[str, Any]:
    """How it fails, and after how long; with a `value` where it does not."""
    started = time.monotonic()
    try:
        return {"value": repr(call(*args, **options))}
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return {"error": str(error), "kinds": kinds, "seconds": time.monotonic() - started}


def _all_gather(size: int) -> Any:
    outputs = [torch.zeros(2) for _ in range(size)]
    dist.all_gather(outputs, torch.full((2,), float(dist.get_rank())))
    return torch.cat(outputs).tolist()


def _reduce_scatter(size: int) -> Any:
    output = torch.zeros(2)
    dist.reduce_scatter_tensor(output, torch.ones(2 * size))
    return output.tolist()


def _all_to_all(size: int) -> Any:
    output = torch.zeros(size)
    dist.all_to_all_single(output, torch.full((size,), float(dist.get_rank())))
    return output.tolist()


def _all_reduce(size: int) -> Any:
    tensor = torch.ones(3)
    dist.all_reduce(tensor)
    return tensor.tolist()


def _broadcast(size: int) -> Any:
    tensor = torch.full((2,), float(dist.get_rank()))
    dist.broadcast(tensor, 0)
    return tensor.tolist()


CALLS: dict[str, Callable[[int], Any]] = {
    "all_reduce": _all_reduce,
    "broadcast": _broadcast,
    "barrier": lambda size: dist.barrier(),
    "all_gather": _all_gather,
    "reduce_scatter": _reduce_scatter,
    "all_to_all": _all_to_all,
}


def call_after_a_death(
    *, rank: int, ranks: int, path: str, call: str, victim: int, async_op: bool = False
) -> None:
    """The victim dies before a call that the others have begun, or are about to begin."""
    init("pccl", rank, ranks, path)
    assert CALLS[call](ranks) is not NotImplemented  # once with all
    dist.barrier()
    if rank == victim:
        time.sleep(0.1)
        die()
    if rank % 2 == 0:
        time.sleep(0.3)  # comes to the call after the death, the other one before it
    first = caught(CALLS[call], ranks)
    say(first=first, size=dist.get_world_size(), rank=dist.get_rank())
    say(second=caught(CALLS[call], dist.get_world_size()))
    dist.destroy_process_group()


def retrying(*, rank: int, ranks: int, path: str, victim: int) -> None:
    """on_loss="retry": no exception, the sum of those who are left."""
    init_options = {"init_method": f"file://{path}", "rank": rank, "world_size": ranks}
    dist.init_process_group("pccl", pg_options=our_dist.Options(on_loss="retry"), **init_options)
    dist.barrier()
    if rank == victim:
        die()
    tensor = torch.full((4,), 1.0 + rank)
    dist.all_reduce(tensor)
    say(values=tensor.tolist(), size=dist.get_world_size(), changed=our_dist.world_changed())
    say(again=our_dist.world_changed())
    dist.destroy_process_group()


def over_tcp(*, rank: int, ranks: int, path: str, victim: int, encrypt: str) -> None:
    """As on several hosts, without a shared memory; the victim dies while it reduces. Values are checked."""
    os.environ |= {"PCCL_TRANSPORT": "tcp", "PCCL_ENCRYPT": encrypt}
    init_options = {"init_method": f"file://{path}", "rank": rank, "world_size": ranks}
    dist.init_process_group("pccl", pg_options=our_dist.Options(on_loss="retry"), **init_options)
    meeting = resolve(None).meeting
    connection, greeting = greeting_of(meeting.addresses[0])
    connection.close()
    say(encrypt=meeting.encrypt, flags=greeting[10])
    if rank == victim:
        threading.Timer(0.3, die).start()
    after = 0
    while after < 10:
        tensor = torch.full((1 << 19,), 10.0**rank)
        dist.all_reduce(tensor)
        size = dist.get_world_size()
        left = sum(10.0**r for r in range(ranks) if size == ranks or r != victim)
        assert bool((tensor == left).all()), (size, tensor.unique().tolist())
        after += size < ranks
    say(after=after)
    dist.destroy_process_group()


def subgroups(*, rank: int, ranks: int, path: str, victim: int) -> None:
    """Two groups; one loses a member, the other does not notice, and the global ranks follow."""
    init("pccl", rank, ranks, path)
    low, high = dist.new_group([0, 1]), dist.new_group([2, 3, 4])
    own = low if rank < 2 else high
    tensor = torch.ones(1)
    dist.all_reduce(tensor, group=own)
    dist.barrier()
    if rank == victim:
        die()
    lost = caught(dist.all_reduce, tensor, group=own)
    tensor.fill_(1)
    dist.all_reduce(tensor, group=own)
    world = caught(dist.barrier)
    dist.barrier()
    say(
        lost=lost,
        world=world,
        value=tensor.item(),
        ranks=dist.get_process_group_ranks(own),
        rank=dist.get_rank(own),
    )
    tensor.fill_(rank)
    last = dist.get_process_group_ranks(own)[-1]
    dist.broadcast(tensor, src=last, group=own)
    later = dist.new_group([0, 1, 2, 3])
    dist.all_reduce(torch.ones(1), group=later)
    say(broadcast=tensor.item(), later=later.size())
    dist.destroy_process_group()


def newcomer(*, rank: int, ranks: int, path: str) -> None:
    """Rank 2 joins the run of 0 and 1 at a step boundary, without a store, through pccl://."""
    url, expected = Path(path + "-url"), 3
    if rank < 2:
        init("pccl", rank, 2, path)
        if rank == 0:
            part = Path(path + "-part")
            part.write_text(our_dist.invitation(path + "-secret"))
            part.rename(url)
        steps = 0
        while dist.get_world_size() < expected:
            dist.all_reduce(torch.ones(1))
            grew = our_dist.update_topology()
            assert grew == (dist.get_world_size() == expected)
            steps += 1
        say(steps=steps > 0, changed=our_dist.world_changed())
    else:
        while not url.exists():
            time.sleep(0.01)
        dist.init_process_group("pccl", init_method=url.read_text())
    tensor = torch.full((2,), 1.0 + rank)
    dist.all_reduce(tensor)
    ranks_of = [torch.zeros(1, dtype=torch.int64) for _ in range(expected)]
    dist.all_gather(ranks_of, torch.tensor([dist.get_rank()]))
    say(
        value=tensor.tolist(),
        rank=dist.get_rank(),
        size=dist.get_world_size(),
        all=torch.cat(ranks_of).tolist(),
    )
    dist.destroy_process_group()


def again_and_again(*, rank: int, ranks: int, path: str) -> None:
    """destroy and init three times in one process: on the same TCPStore, in both doors."""
    store = _store_of(path, rank)
    sums = []
    for turn in range(3):
        for door in (dist, our_dist):
            backend = {"backend": "pccl"}
            door.init_process_group(store=store, rank=rank, world_size=ranks, **backend)
            tensor = torch.full((2,), float(turn + rank))
            door.all_reduce(tensor)
            sums.append(tensor[0].item())
            door.destroy_process_group()
            assert not door.is_initialized()
    say(sums=sums)
    store.add("left", 1)
    while rank == 0 and store.add("left", 0) < ranks:
        time.sleep(0.01)


def _store_of(path: str, rank: int) -> dist.TCPStore:
    port = Path(path + "-port")
    if rank == 0:
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        part = Path(path + "-part")
        part.write_text(str(store.port))
        part.rename(port)
        return store
    while not port.exists():
        time.sleep(0.01)
    return dist.TCPStore("127.0.0.1", int(port.read_text()), is_master=False)


def _all_reduce_of_a_tensor_without_memory() -> None:
    """As of a GPU that this torch has not."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        tensor = torch.empty(3, device="cuda")
    dist.group.WORLD.allreduce([tensor]).wait()


def _recv_of_nobody() -> None:
    dist.group.WORLD.set_timeout(timedelta(seconds=0.3))
    try:
        dist.recv(torch.zeros(1))
    finally:
        dist.group.WORLD.set_timeout(timedelta(minutes=30))


def bad_input(*, rank: int, ranks: int, path: str) -> None:
    """What is refused, and that the group goes on."""
    init("pccl", rank, ranks, path)
    say(case="float8", **caught(dist.all_reduce, torch.ones(2).to(torch.float8_e4m3fn)))
    say(case="float8 bits", **caught(dist.all_reduce, torch.ones(2).to(torch.float8_e5m2), dist.ReduceOp.MAX))
    say(case="complex", **caught(dist.all_reduce, torch.ones(2, dtype=torch.complex64), dist.ReduceOp.MAX))
    say(case="traced", **caught(_all_reduce_of_a_tensor_without_memory))
    say(case="sparse", **caught(dist.group.WORLD.allreduce, [torch.eye(2).to_sparse()]))
    say(case="meta", **caught(dist.all_reduce, torch.ones(2, device="meta")))
    say(case="shapes", **caught(dist.all_reduce, torch.ones(2 + rank)))
    say(case="dtypes", **caught(dist.all_reduce, torch.ones(2, dtype=[torch.float32, torch.int32][rank])))
    say(case="list", **caught(dist.all_gather, [torch.zeros(2)] * 3, torch.zeros(2)))
    say(case="anysource", **caught(_recv_of_nobody))
    parts = [torch.ones(2 + (source == 0)) for source in range(ranks)]  # 3 from rank 0, which sends 2
    say(case="splits", **caught(dist.all_to_all, parts, [torch.ones(2)] * ranks))
    say(case="no tensor", **caught(our_dist.all_reduce, [1.0, 2.0]))
    say(case="objects", **caught(our_dist.all_gather_object, [None] * 2, {1, 2}))
    if rank == 0:
        say(case="late", **caught(our_dist.monitored_barrier, timeout=timedelta(seconds=0.3)))
    else:
        time.sleep(1)
        caught(our_dist.monitored_barrier, timeout=timedelta(seconds=0.3))
    moved = torch.full((3,), 1.0 + rank).to(torch.float8_e4m3fn)
    dist.broadcast(moved, 1)
    tensor = torch.ones(2)
    dist.all_reduce(tensor)
    say(case="last", value=repr(tensor.tolist() + moved.float().tolist()))
    dist.destroy_process_group()


class Numbers(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index))


def loaders(*, rank: int, ranks: int, path: str, victim: int) -> None:
    """Forked data-loader workers live on when their trainer is killed; nobody takes them for it."""
    init("pccl", rank, ranks, path)
    loader = torch.utils.data.DataLoader(Numbers(), num_workers=1, multiprocessing_context="fork")
    numbers = iter(loader)
    total = next(numbers).clone()
    dist.all_reduce(total)
    if rank == victim:
        die()
    first = caught(dist.all_reduce, total)
    total = sum(numbers, torch.zeros(1))
    dist.all_reduce(total)
    say(first=first, total=total.item(), size=dist.get_world_size())
    dist.destroy_process_group()


def to_a_dead_one(*, rank: int, ranks: int, path: str, victim: int) -> None:
    """send and recv with a rank that dies in between, and with one that has died."""
    init("pccl", rank, ranks, path)
    tensor = torch.full((2,), float(rank))
    dist.barrier()  # else a rank that is slow may find the victim gone already, and is one of two
    if rank == 0:
        dist.recv(tensor, victim)
    if rank == victim:
        dist.send(tensor, 0)
        die()
    if rank == 0:
        say(received=tensor.tolist(), first=caught(dist.recv, tensor, victim))
    else:
        say(first=caught(dist.send, tensor, victim))
    caught(dist.barrier)
    dist.barrier()
    other = 1 - dist.get_rank()
    got = torch.zeros(2)
    for work in (dist.isend(torch.full((2,), float(rank)), other), dist.irecv(got, other)):
        work.wait()
    say(got=got.tolist())
    dist.destroy_process_group()


def killed_in_messages(*, rank: int, ranks: int, path: str, call: str) -> None:
    """The last rank dies while others wait for its message; messages between those go on."""
    init("pccl", rank, ranks, path)
    victim, got = ranks - 1, torch.zeros(2)
    dist.barrier()
    if rank == victim:
        time.sleep(0.3)
        die()
    calls = {
        "recv": lambda: dist.recv(got, victim, tag=1),
        "recv_any": lambda: dist.recv(got, tag=1),
        "send": lambda: dist.send(torch.zeros(1 << 20), victim, tag=1),
        "batch": lambda: [
            work.wait()
            for work in dist.batch_isend_irecv(
                [dist.P2POp(dist.isend, torch.ones(2), victim), dist.P2POp(dist.irecv, got, victim)]
            )
        ],
    }
    other = 1 - rank
    works = [dist.isend(torch.full((2,), 5.0 + rank), other), dist.irecv(mine := torch.zeros(2), other)]
    died = caught(calls[call])
    for work in works:
        work.wait()
    say(died=died, mine=mine.tolist())
    caught(dist.barrier)
    tensor = torch.ones(1)
    dist.all_reduce(tensor)
    say(sum=tensor.item())
    dist.destroy_process_group()


def splitting(*, rank: int, ranks: int, path: str) -> None:
    """torch's split_group, which asks for an accelerator first: a pretended one here."""
    cpu = torch.device("cpu")
    torch.accelerator.is_available = lambda: True
    torch.accelerator.current_accelerator = lambda *_: cpu
    init("pccl", rank, ranks, path)
    dist.group.WORLD.bound_device_id = torch.device("cpu", 0)
    halves = dist.split_group(split_ranks=[[0, 2], [1, 3]])
    tensor = torch.full((2,), 1.0 + rank)
    dist.all_reduce(tensor, group=halves)
    one = dist.split_group(halves, [[1]])
    dist.broadcast(tensor, dist.get_process_group_ranks(halves)[1], group=halves)
    say(
        value=tensor.tolist(),
        ranks=dist.get_process_group_ranks(halves),
        own=dist.get_process_group_ranks(one) if isinstance(one, dist.ProcessGroup) else None,
    )
    dist.destroy_process_group()


def errors_are_both_kinds(*, rank: int, ranks: int, path: str) -> None:
    init("pccl", rank, ranks, path)
    dist.barrier()
    if rank == 1:
        die()
    try:
        dist.all_reduce(torch.ones(1))
    except pccl_py.PeerLost as error:
        assert isinstance(error, dist.DistBackendError) and isinstance(error, RuntimeError)
        say(kind="both")
    work = dist.all_reduce(torch.ones(1), async_op=True)
    work.wait()
    say(success=work.is_success(), exception=repr(work.exception()), pid=os.getpid())
    dist.destroy_process_group()
