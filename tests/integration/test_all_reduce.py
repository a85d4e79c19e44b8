"""What all_reduce computes: every dtype, operation, size and alignment; lists, weights; alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pccl_py import Communicator, Master, OpInfo
from pccl_py.tensors import DTYPE_CODES

from .exact import OPS, assert_equal, contribution, expected
from .peers import assert_sent, together


@pytest.mark.parametrize("peers", [1, 2, 3])
def test_every_dtype_and_op(master: Master, peers: int) -> None:
    def play(comm: Communicator, index: int) -> None:
        rank = comm.rank
        for name in DTYPE_CODES:
            for op in OPS:
                for count in (1, 1000):
                    wanted = expected(name, op, count, peers)
                    tensor = contribution(name, rank, count)
                    out = torch.zeros_like(tensor)
                    comm.all_reduce(tensor, op, out=out)
                    assert torch.equal(tensor, contribution(name, rank, count)), "the input was changed"
                    comm.all_reduce(tensor, op)
                    assert_equal(out, wanted, name, op)
                    assert torch.equal(out, tensor)

    together(master.address, peers, play)


@pytest.mark.parametrize("peers", [2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 1 << 16, (1 << 20) + 3])
def test_sizes_and_alignments(master: Master, peers: int, count: int) -> None:
    def play(comm: Communicator, index: int) -> OpInfo:
        raw = np.zeros(4 * count + 1, np.uint8)
        array = raw[1:].view(np.float32)
        array[:] = np.arange(count) % 1000 + comm.rank
        info = comm.all_reduce(array)
        assert np.array_equal(array, np.arange(count) % 1000 * peers + sum(range(peers)))
        return info

    infos = together(master.address, peers, play)
    assert {len(info.contributors) for info in infos} == {peers}
    if count >= 1 << 16:
        for info in infos:
            assert_sent(info, 2 * (peers - 1) / peers * 4 * count)


def test_a_list_is_one_operation(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        tensors: list[Any] = [np.full(3, 1.0), torch.ones(1000, dtype=torch.int64), np.zeros(0, np.int8)]
        tensors.append(torch.ones(1 << 18))
        info = comm.all_reduce(tensors)
        assert info.attempts == 1 and len(info.contributors) == 3
        assert all(np.all(np.asarray(tensor) == 3) for tensor in tensors)
        outs = [np.zeros(3), torch.zeros(1000, dtype=torch.int64), tensors[2], torch.zeros(1 << 18)]
        comm.all_reduce(tensors, "max", out=outs)
        assert all(np.all(np.asarray(out) == 3) for out in outs)

    together(master.address, 3, play)


@pytest.mark.parametrize("count", [7, 40_000, 1 << 19])
def test_inputs_may_share_memory_where_results_go_elsewhere(master: Master, count: int) -> None:
    def play(comm: Communicator, index: int) -> None:
        array = np.arange(count, dtype=np.float32) % 100 + comm.rank
        array.flags.writeable = False
        outs = [np.zeros(count, np.float32), np.zeros(count, np.float32), np.zeros(count - 5, np.float32)]
        comm.all_reduce([array, array, array[5:]], out=outs)
        wanted = np.arange(count) % 100 * 3 + 3
        assert np.array_equal(outs[0], wanted) and np.array_equal(outs[1], wanted)
        assert np.array_equal(outs[2], wanted[5:])

    together(master.address, 3, play)


def test_weights(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        rank = comm.rank
        array = np.full(100_000, float(rank + 1), np.float32)
        info = comm.all_reduce(array, "avg", weight=float(rank))
        assert np.allclose(array, (0 * 1 + 1 * 2 + 2 * 3) / 3)
        assert info.weight == 3.0
        half = torch.full((10,), float(rank), dtype=torch.bfloat16)
        comm.all_reduce(half, "avg", weight=0.5)
        assert torch.equal(half, torch.ones(10, dtype=torch.bfloat16))
        info = comm.all_reduce(array, "avg", weight=0)
        assert info.weight == 0 and not array.any()
        assert comm.all_reduce(array).weight is None

    together(master.address, 3, play)


def test_alone_is_the_identity(master: Master) -> None:
    with Communicator(master.address) as comm:
        values = np.array([np.nan, -0.0, np.inf, 5e-324, 1.1], np.float64)
        before = values.tobytes()
        for op in OPS:
            info = comm.all_reduce(values, op)  # type: ignore[call-overload]
            assert values.tobytes() == before
            assert (info.bytes_sent, info.bytes_received, info.contributors) == (0, 0, (comm.id,))
        assert comm.world_size == 1 and comm.rank == 0 and comm.islands == 1
        assert comm.update_topology() is False
