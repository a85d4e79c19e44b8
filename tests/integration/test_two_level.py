"""algorithm="two-level": peers that say where they are, spread in every way, with a kill inside."""

from __future__ import annotations

import dataclasses
import threading
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from pccl_py import Communicator, Master
from pccl_py.tensors import DTYPE_CODES
from tests.conftest import Spawn
from tests.threads import in_threads

from .exact import OPS, assert_equal, contribution, expected
from .peers import PEER, QUICK, expect

layouts = pytest.mark.parametrize("hosts", ["aaab", "aabb", "abac", "abcd", "aaaa", "aba"])


def on_hosts(address: str, hosts: str, play: Any) -> list[Any]:
    """`play(comm)` on a peer for each letter, which is its host."""

    def member(index: int) -> Any:
        config = dataclasses.replace(QUICK, host_label=hosts[index])
        with Communicator(address, min_islands=len(hosts), config=config) as comm:
            result = play(comm)
            comm.barrier()
            return result

    return in_threads([partial(member, index) for index in range(len(hosts))], 50)


@layouts
def test_every_dtype_and_op(master: Master, hosts: str) -> None:
    peers = len(hosts)

    def play(comm: Communicator) -> None:
        assert sorted(np.unique([p.host for p in comm.peers()], return_counts=True)[1]) == sorted(
            hosts.count(host) for host in set(hosts)
        )
        rank = comm.rank
        for name in DTYPE_CODES:
            for op in OPS:
                for count in (1, peers - 1, 1003):
                    tensor = contribution(name, rank, count)
                    out = torch.zeros_like(tensor)
                    comm.all_reduce(tensor, op, out=out, algorithm="two-level")
                    assert torch.equal(tensor, contribution(name, rank, count)), "the input was changed"
                    comm.all_reduce(tensor, op, algorithm="two-level")
                    assert_equal(out, expected(name, op, count, peers), name, op)
                    assert torch.equal(out, tensor)

    on_hosts(master.address, hosts, play)


@layouts
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_weights_and_size(master: Master, hosts: str, name: str) -> None:
    """Sizes that fit nothing; halves of which a sum in halves would lose the small ones."""

    def play(comm: Communicator) -> bytes:
        rank, ranks = comm.rank, range(len(hosts))
        dtype = getattr(torch, name)
        for count in (5, 300_007):
            tensor = torch.full((count,), float(rank + 1), dtype=dtype)
            info = comm.all_reduce(tensor, "avg", weight=float(rank), algorithm="two-level")
            wanted = torch.tensor(sum(r * (r + 1) for r in ranks) / sum(ranks), dtype=torch.float64).to(dtype)
            assert info.weight == sum(ranks)
            assert torch.allclose(tensor, wanted, rtol=1e-6 if name == "float32" else 0)
        small = torch.full((70_001,), 256.0 if rank == 0 else 0.5, dtype=dtype)
        comm.all_reduce(small, algorithm="two-level")
        assert torch.all(small == torch.tensor(256 + 0.5 * (len(hosts) - 1)).to(dtype))
        noise = torch.from_numpy(np.random.default_rng(rank).normal(size=10_007)).to(dtype)
        comm.all_reduce(noise, "avg", algorithm="two-level")
        return noise.view(torch.uint8).numpy().tobytes()

    assert len(set(on_hosts(master.address, hosts, play))) == 1


def test_only_sums_cross_between_hosts(master: Master) -> None:
    """Of two hosts with two peers each, a link between hosts carries a quarter of the tensor, twice."""
    count = 1 << 20

    def play(comm: Communicator) -> int:
        tensor = np.ones(count, np.float32)
        comm.barrier()
        before = _sent_across(comm)
        comm.all_reduce(tensor, algorithm="two-level")
        assert np.all(tensor == 4)
        return _sent_across(comm) - before

    for across in on_hosts(master.address, "aabb", play):
        assert across == pytest.approx(2 * count, rel=0.02)


def _sent_across(comm: Communicator) -> int:
    own = next(p.host for p in comm.peers() if p.id == comm.id)
    return sum(p.link.bytes_sent for p in comm.peers() if p.host != own and p.link is not None)


LOOP = """
import dataclasses
comm = Communicator(address, min_islands=4, config=dataclasses.replace(config, host_label="a"))
say("in")
while True:
    comm.all_reduce(np.full(250_007, 1.0), algorithm="two-level")
"""


def test_a_kill_inside(master: Master, spawn: Spawn) -> None:
    """Hosts of 2 and 2 peers become 1 and 2: every sum has each of those who contributed once."""
    victim = spawn("-c", PEER + LOOP, master.address)
    inside = threading.Event()

    def watch() -> None:
        expect(victim, "in")
        inside.set()

    def survive(host: str) -> list[int]:
        config = dataclasses.replace(QUICK, host_label=host)
        with Communicator(master.address, min_islands=4, config=config) as comm:
            contributors = []
            for turn in range(60):
                tensor = np.full(250_007, 1.0)
                info = comm.all_reduce(tensor, algorithm="two-level")
                assert np.all(tensor == len(info.contributors))
                contributors.append(len(info.contributors))
                if turn == 20 and host == "a" and inside.wait(20):
                    victim.kill()
            return contributors

    results = in_threads([*[partial(survive, host) for host in "abb"], watch])[:3]
    assert all(result == results[0] for result in results)
    assert results[0][0] == 4 and results[0][-1] == 3
