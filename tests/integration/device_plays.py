"""Operations on tensors of a device, fake or real: what peers do, and what must come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pccl_py import Communicator, ErrorFeedback, MismatchError, NonFiniteError, QuantConfig

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.uint8)


class Kit(ABC):
    """A device, for one peer."""

    @abstractmethod
    def attach(self, comm: Communicator) -> None: ...

    @abstractmethod
    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """On the device."""

    @abstractmethod
    def kernel(self, what: Callable[[], object]) -> None:
        """On the current stream, later."""

    @abstractmethod
    def read(self, tensor: torch.Tensor) -> torch.Tensor:
        """On the host, when the device has done everything."""


def reduces(comm: Communicator, kit: Kit) -> None:
    rank, world = comm.rank, comm.world_size
    for dtype in DTYPES:
        for count in (0, 1, 1000, 100_003):
            tensor = kit.put(torch.zeros(count, dtype=dtype))
            kit.kernel(lambda t=tensor: t.fill_(rank + 1))  # type: ignore[misc]
            out = kit.put(torch.empty_like(tensor))
            comm.all_reduce(tensor, out=out)
            doubled = kit.put(torch.empty_like(tensor))
            kit.kernel(lambda o=out, d=doubled: d.copy_(o + o))  # type: ignore[misc]
            comm.all_reduce(tensor, "max")
            total = world * (world + 1) // 2
            assert torch.equal(kit.read(out), torch.full((count,), total, dtype=dtype))
            assert torch.equal(kit.read(doubled), torch.full((count,), 2 * total, dtype=dtype))
            assert torch.equal(kit.read(tensor), torch.full((count,), world, dtype=dtype))


def mixes(comm: Communicator, kit: Kit) -> None:
    """Lists of tensors here and there; shapes; results that go to the other side."""
    rank, world = comm.rank, comm.world_size
    matrix = kit.put(torch.full((3, 5), rank, dtype=torch.float32))
    scalar, array = kit.put(torch.tensor(rank, dtype=torch.float64)), np.full(7, rank)
    comm.all_reduce([matrix, array, scalar])
    total = world * (world - 1) // 2
    assert torch.equal(kit.read(matrix), torch.full((3, 5), float(total)))
    assert np.array_equal(array, np.full(7, total)) and float(kit.read(scalar)) == total
    host, back = torch.empty(4), kit.put(torch.empty(4))
    comm.all_reduce(kit.put(torch.ones(4)), out=host)
    assert torch.equal(host, torch.full((4,), float(world)))
    comm.all_reduce(torch.ones(4), out=back)
    assert torch.equal(kit.read(back), torch.full((4,), float(world)))


def overlaps(comm: Communicator, kit: Kit) -> None:
    """Several in flight; a Work's wait orders the current stream, and blocks the host when asked."""
    rank, world = comm.rank, comm.world_size
    tensors = [kit.put(torch.full((2000 * i + 1,), float(rank + i))) for i in range(6)]
    works = [comm.all_reduce(t, "avg", tag=i, async_op=True) for i, t in enumerate(tensors)]
    for i, work in reversed(list(enumerate(works))):
        work.wait(timeout=30, block=i % 2 == 0)
        mean = i + (world - 1) / 2
        if i % 2 == 0:
            assert torch.equal(tensors[i].cpu(), torch.full((2000 * i + 1,), mean)), "wait() did not block"
        work.wait()
        assert torch.equal(kit.read(tensors[i]), torch.full((2000 * i + 1,), mean))


def moves(comm: Communicator, kit: Kit) -> None:
    """Broadcast, and the calls in blocks."""
    rank, world = comm.rank, comm.world_size
    tensor = kit.put(torch.full((1001,), float(rank)))
    comm.broadcast([tensor], 1)
    assert torch.equal(kit.read(tensor), torch.ones(1001))
    ranks = torch.arange(world, dtype=torch.float32)
    mine, everything = kit.put(torch.full((50,), float(rank))), kit.put(torch.empty(world * 50))
    comm.all_gather(mine, everything)
    assert torch.equal(kit.read(everything), ranks.repeat_interleave(50))
    comm.reduce_scatter(everything, mine, "sum")
    assert torch.equal(kit.read(mine), torch.full((50,), float(rank * world)))
    comm.gather(mine, 0, everything if rank == 0 else None)
    assert rank != 0 or torch.equal(kit.read(everything), (ranks * world).repeat_interleave(50))
    comm.scatter(everything if rank == 0 else None, 0, mine)
    assert torch.equal(kit.read(mine), torch.full((50,), float(rank * world)))
    swapped = kit.put(torch.empty(world))
    comm.all_to_all(kit.put(10.0 * rank + ranks), swapped)
    assert torch.equal(kit.read(swapped), 10 * ranks + rank)


def sends(comm: Communicator, kit: Kit) -> None:
    """Around the ring, from and to a device, one of them from whoever sends; kernels before count."""
    rank, world = comm.rank, comm.world_size
    right, left = (rank + 1) % world, (rank - 1) % world
    for turn, source in enumerate((left, None)):
        tensor, got = kit.put(torch.zeros(70_001)), kit.put(torch.full((70_001,), -1.0))
        kit.kernel(lambda t=tensor, v=10.0 * turn + rank: t.fill_(v))  # type: ignore[misc]
        work = comm.send(tensor, right, tag=turn, async_op=True)
        comm.recv(got, source, tag=turn)
        work.wait()
        assert torch.equal(kit.read(got), torch.full((70_001,), 10.0 * turn + left))
        assert torch.equal(kit.read(tensor), torch.full((70_001,), 10.0 * turn + rank))


def failures(comm: Communicator, kit: Kit) -> None:
    """What fails leaves tensors on the device as they were, inputs and outputs."""
    rank = comm.rank
    tensor, out = kit.put(torch.full((300,), float(rank))), kit.put(torch.full((300,), -1.0))
    for target in (None, out):
        with pytest.raises(MismatchError):
            comm.all_reduce(tensor, "sum" if rank == 0 else "max", out=target)
        assert torch.equal(kit.read(tensor), torch.full((300,), float(rank)))
        assert torch.equal(kit.read(out), torch.full((300,), -1.0))
    bad = kit.put(torch.full((300,), float("nan") if rank == 1 else 1.0))
    with pytest.raises(NonFiniteError):
        comm.all_reduce(bad, quantization="int8")
    assert bool(kit.read(bad).isnan().all()) == (rank == 1)
    info = comm.all_reduce(bad, "avg", quantization=QuantConfig("int8", non_finite="skip"))
    assert isinstance(info, object) and len(info.skipped) == 1
    assert torch.allclose(kit.read(bad), torch.ones(300), rtol=1e-2)
    assert comm._staging is not None
    idle = comm._staging.pool
    assert len(idle._idle) * (1 << 20) == idle.bytes, "all memory came back to the pool"


def feeds_back(comm: Communicator, kit: Kit) -> None:
    """Quantized, with error feedback: the residual is in host memory, and of what was sent."""
    rank, world, rounds = comm.rank, comm.world_size, 40
    feedback, total = ErrorFeedback(), torch.zeros(640, dtype=torch.float64)
    x = torch.full((640,), 1e-2 * (rank + 1))
    x[::64] = 1.0
    for _ in range(rounds):
        tensor = kit.put(x.clone())
        comm.all_reduce(tensor, "avg", quantization="int4", error_feedback=feedback["x"])
        total += kit.read(tensor)
    (left,) = feedback.state_dict()["x"]
    assert not left.is_cuda
    mean = left.double()
    comm.all_reduce(mean, "avg")
    exact = torch.full((640,), 1e-2 * (world + 1) / 2, dtype=torch.float64)
    exact[::64] = 1.0
    assert float((total + mean - exact * rounds).abs().max()) < 1e-4
    assert float((total - exact * rounds).abs().max()) < 0.2


def waits_for_kernels(comm: Communicator, kit: Kit, slow: Callable[[Any], object]) -> None:
    """The operation takes what slow kernels before it write, on whatever stream is the current one."""
    tensor = kit.put(torch.zeros(1 << 16))
    slow(tensor)
    kit.kernel(lambda: tensor.add_(comm.rank + 1))
    comm.all_reduce(tensor)
    kit.kernel(lambda: tensor.mul_(2))
    expected = comm.world_size * (comm.world_size + 1)
    assert torch.equal(kit.read(tensor), torch.full((1 << 16,), float(expected)))


PLAYS = (reduces, mixes, overlaps, moves, sends, failures, feeds_back)
ALONE = (reduces, mixes, overlaps)  # also of one peer
