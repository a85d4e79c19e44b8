"""Every algorithm computes what the others do: dtypes, ops, sizes, lists, weights, in and out of place."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch

from pccl_py import Algorithm, Communicator, Master, MismatchError, OpInfo
from pccl_py.arguments import ALGORITHMS
from pccl_py.tensors import DTYPE_CODES

from .exact import OPS, assert_equal, contribution, expected
from .peers import assert_sent, together

KIB = 1 << 10
algorithms = pytest.mark.parametrize("algorithm", ["auto", "ring", "direct", "exchange", "two-level"])
worlds = pytest.mark.parametrize("peers", [2, 3, 4])


def test_names_are_those_that_are_numbered() -> None:
    assert list(get_args(Algorithm)) == list(ALGORITHMS)


@worlds
@algorithms
def test_every_dtype_and_op(master: Master, peers: int, algorithm: Any) -> None:
    """One element, fewer than peers, and some that make several kernels' blocks and a rest."""

    def play(comm: Communicator, index: int) -> None:
        rank = comm.rank
        for name in DTYPE_CODES:
            for op in OPS:
                for count in (1, peers - 1, 1003):
                    tensor = contribution(name, rank, count)
                    out = torch.zeros_like(tensor)
                    comm.all_reduce(tensor, op, out=out, algorithm=algorithm)
                    assert torch.equal(tensor, contribution(name, rank, count)), "the input was changed"
                    comm.all_reduce(tensor, op, algorithm=algorithm)
                    assert_equal(out, expected(name, op, count, peers), name, op)
                    assert torch.equal(out, tensor)

    together(master.address, peers, play)


@worlds
@algorithms
@pytest.mark.parametrize("count", [0, 5, 16 * KIB, 16 * KIB + 1, (1 << 20) + 3])
def test_sizes_and_alignments(master: Master, peers: int, algorithm: Any, count: int) -> None:
    def play(comm: Communicator, index: int) -> OpInfo:
        raw = np.zeros(4 * count + 1, np.uint8)
        array = raw[1:].view(np.float32)
        array[:] = np.arange(count) % 1000 + comm.rank
        info = comm.all_reduce(array, algorithm=algorithm)
        assert np.array_equal(array, np.arange(count) % 1000 * peers + sum(range(peers)))
        return info

    fewest = 2 * (peers - 1) / peers * 4 * count
    whole = (peers - 1) * 4 * count
    small = algorithm == "exchange" or algorithm == "auto"
    for info in together(master.address, peers, play):
        assert len(info.contributors) == peers
        if count >= 16 * KIB:  # 16 Ki elements are the most that one hop may be taken for
            wanted = whole if small and count == 16 * KIB else fewest
            assert_sent(info, wanted)


@worlds
@algorithms
def test_lists_are_one_operation(master: Master, peers: int, algorithm: Any) -> None:
    def play(comm: Communicator, index: int) -> None:
        for large in (10, 1 << 18):
            tensors: list[Any] = [np.full(3, 1.0), torch.ones(1000, dtype=torch.int64), np.zeros(0, np.int8)]
            tensors += [np.ones(1, np.uint8), torch.ones(large), np.ones(1000, np.float16)]
            comm.all_reduce(tensors, algorithm=algorithm)
            assert all(np.all(np.asarray(tensor) == peers) for tensor in tensors)
            outs = [torch.zeros_like(t) if isinstance(t, torch.Tensor) else np.zeros_like(t) for t in tensors]
            outs[4] = tensors[4]  # one of them in place
            comm.all_reduce(tensors, "max", out=outs, algorithm=algorithm)
            assert all(np.all(np.asarray(out) == peers) for out in outs)

    together(master.address, peers, play)


@worlds
@algorithms
@pytest.mark.parametrize("count", [1, 7, 10_000, 300_000])
def test_weights(master: Master, peers: int, algorithm: Any, count: int) -> None:
    def play(comm: Communicator, index: int) -> None:
        rank = comm.rank
        ranks = range(peers)
        for name in ("float32", "float64", "float16", "bfloat16"):
            tensor = torch.full((count,), float(rank + 1), dtype=getattr(torch, name))
            out = torch.empty_like(tensor)
            info = comm.all_reduce(tensor, "avg", out=out, weight=float(rank), algorithm=algorithm)
            wanted = sum(r * (r + 1) for r in ranks) / sum(ranks)
            assert info.weight == sum(ranks)
            exact = torch.full((count,), wanted, dtype=torch.float64)
            assert torch.allclose(out.double(), exact, rtol=1e-2 if "16" in name else 1e-6)
            comm.all_reduce(tensor, "avg", weight=float(rank), algorithm=algorithm)
            assert torch.equal(tensor, out)
            info = comm.all_reduce(tensor, "avg", weight=0, algorithm=algorithm)
            assert info.weight == 0 and not tensor.any()

    together(master.address, peers, play)


@pytest.mark.parametrize(("one", "other"), [("ring", "direct"), ("exchange", "ring")])
def test_peers_that_choose_differently_are_told(master: Master, one: Any, other: Any) -> None:
    def play(comm: Communicator, index: int) -> str:
        with pytest.raises(MismatchError) as caught:
            comm.all_reduce(np.ones(1000), algorithm=other if comm.rank else one)
        comm.all_reduce(np.ones(1000), algorithm=one)
        return str(caught.value)

    for text in together(master.address, 2, play):
        assert f"{one} in chunks" in text and f"{other} in chunks" in text, text
