"""Sums over GF(2^8) across peers, against a reference in plain Python: parities, decoded blocks, bytes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pccl_py import Communicator, Master, MismatchError, OpInfo, PeerLost, UsageError
from pccl_py.coded_calls import CodedSum, CodedTerm, rotated_sums
from tests.conftest import Spawn
from tests.threads import in_threads

from .peers import PATIENT, PEER, expect, together

Bytes = npt.NDArray[np.uint8]


@pytest.fixture
def master() -> Iterator[Master]:
    """A killed process is known by its connections: silence may last, on a busy machine."""
    with Master(config=PATIENT) as running:
        yield running


def product(a: int, b: int) -> int:
    """Of two bytes as polynomials, modulo x^8 + x^4 + x^3 + x^2 + 1."""
    total = 0
    while b:
        total ^= a if b & 1 else 0
        a = (a << 1) ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return total


TABLE = np.array([[product(a, b) for b in range(256)] for a in range(256)], np.uint8)
INVERSE = {a: int(np.flatnonzero(TABLE[a] == 1)[0]) for a in range(1, 256)}


def cauchy(m: int, k: int) -> list[list[int]]:
    return [[INVERSE[row ^ (m + column)] for column in range(k)] for row in range(m)]


def block_of(rank: int, number: int, length: int) -> Bytes:
    return np.random.default_rng([rank, number]).integers(0, 256, length, np.uint8)


def summed(total: CodedSum, lengths: list[int], length: int) -> Bytes:
    """As its definition says: shorter blocks end in zeros."""
    result = np.zeros(length, np.uint8)
    for rank, number, coefficient in total.terms:
        block = block_of(rank, number, lengths[rank])
        result[: len(block)] ^= TABLE[coefficient][block]
    return result


@pytest.mark.parametrize("transport", ["tcp", "auto"])
@pytest.mark.parametrize(("world", "m"), [(2, 1), (4, 1), (5, 2), (6, 3)])
def test_rotated_parities(master: Master, world: int, m: int, transport: str) -> None:
    """Small blocks, large ones, and blocks of different lengths: every parity byte is right."""
    sums = rotated_sums(world, cauchy(m, world - m))

    def play(comm: Communicator, index: int) -> None:
        rank, ids = comm.rank, comm._ids()
        for longest, spread in ((1, 0), (999, 50), (300_000, 70_000)):
            lengths = [longest - spread * r // world for r in range(world)]
            blocks = [block_of(rank, i, lengths[rank]) for i in range(world - m)]
            copies = [block.copy() for block in blocks]
            out = [np.empty(longest, np.uint8) for _ in range(m)]
            info = comm.coded_reduce_scatter(blocks, out, sums, block_bytes=longest)
            assert isinstance(info, OpInfo)
            assert sorted(info.contributors) == ids
            assert all(np.array_equal(a, b) for a, b in zip(blocks, copies, strict=True))
            own = [total for total in sums if total.owner == rank]
            for got, total in zip(out, own, strict=True):
                assert np.array_equal(got, summed(total, lengths, longest))

    together(master.address, world, play, transport=transport)


def test_bytes_on_the_network(master: Master) -> None:
    """m times the coded bytes; whole frames with their headers no more than 5 % above. Each sends as much."""
    world, m, length = 5, 2, 2_000_000
    k = world - m
    sums = rotated_sums(world, cauchy(m, k))

    def traffic(comm: Communicator) -> int:
        return sum(peer.link.bytes_sent for peer in comm.peers() if peer.link is not None)

    def play(comm: Communicator, index: int) -> tuple[int, int]:
        blocks = [block_of(comm.rank, i, length) for i in range(k)]
        out = [np.empty(length, np.uint8) for _ in range(m)]
        comm.barrier()
        before = traffic(comm)
        info = comm.coded_reduce_scatter(blocks, out, sums)
        comm.barrier()
        after = traffic(comm)
        comm.barrier()  # nobody leaves before all have looked
        assert isinstance(info, OpInfo)
        return info.bytes_sent, after - before

    results = together(master.address, world, play, transport="tcp")
    coded = world * k * length
    assert sum(payload for payload, _ in results) == m * coded
    assert m * coded <= sum(whole for _, whole in results) <= 1.05 * m * coded
    assert all(payload == m * coded // world for payload, _ in results)


def test_lost_blocks_are_decoded_by_those_who_are_left(master: Master) -> None:
    """The same call with other coefficients: what ranks 1 and 2 held of stripe 0 comes to ranks 3 and 0."""
    world, m, length = 5, 2, 10_000
    code = cauchy(m, 3)
    data = [block_of(9, i, length) for i in range(3)]
    parities = [np.zeros(length, np.uint8) for _ in range(m)]
    for parity, row in zip(parities, code, strict=True):
        for block, c in zip(data, row, strict=True):
            parity ^= TABLE[c][block]
    # Blocks 0 and 1 of the code from block 2 and both parities: [a b; c d]^-1 of the columns that are lost.
    (a, b, x), (c, d, y) = code
    scale = INVERSE[product(a, d) ^ product(b, c)]
    inverse = [[product(scale, v) for v in row] for row in ((d, b), (c, a))]
    held = {0: parities[0], 3: parities[1], 4: data[2]}
    sums = [
        CodedSum(
            owner,
            (
                CodedTerm(4, 0, product(p, x) ^ product(q, y)),
                CodedTerm(0, 0, p),
                CodedTerm(3, 0, q),
            ),
        )
        for owner, (p, q) in zip((3, 0), inverse, strict=True)
    ]

    def play(comm: Communicator, index: int) -> None:
        rank = comm.rank
        blocks = [held[rank]] if rank in held else []
        out = [np.empty(length, np.uint8)] if rank in (0, 3) else []
        comm.coded_reduce_scatter(blocks, out, sums, block_bytes=length)
        if out:
            assert np.array_equal(out[0], data[0 if rank == 3 else 1])

    together(master.address, world, play, role="keeper")


def test_a_rate_limit_holds(master: Master) -> None:
    """Each of two sends 1.5 MB at 3 MB/s, beside an operation that is not held up by it."""
    sums = rotated_sums(2, [[1]])
    length = 1_500_000

    def play(comm: Communicator, index: int) -> float:
        out, rank = [np.empty(length, np.uint8)], comm.rank
        began = time.monotonic()
        block = block_of(rank, 0, length)
        work: Any = comm.coded_reduce_scatter([block], out, sums, rate_limit=3e6, tag=1, async_op=True)
        array = np.full(100_000, 1.0)
        comm.all_reduce(array, tag=2)
        assert np.all(array == 2) and not work.is_completed()
        work.wait()
        assert np.array_equal(out[0], block_of(1 - rank, 0, length))
        return time.monotonic() - began

    assert all(0.42 < took < 5 for took in together(master.address, 2, play))


VICTIM = """
from pccl_py.coded_calls import *
comm = Communicator(address, role="keeper", min_islands=4, config=config)
say("in", comm.id)
from tests.integration.test_coded import *
sums, length = rotated_sums(4, cauchy(2, 2)), int(sys.argv[2])
blocks = [block_of(comm.rank, i, length) for i in range(2)]
for step in range(10000):
    comm.coded_reduce_scatter(blocks, [np.empty(length, np.uint8) for _ in range(2)], sums, rate_limit=4e6)
"""


def code(comm: Communicator, m: int, length: int, **options: Any) -> None:
    """One operation, checked: blocks are intact however it ends, and parities are right where it commits."""
    world, rank = comm.world_size, comm.rank
    sums = rotated_sums(world, cauchy(m, world - m))
    blocks = [block_of(rank, i, length) for i in range(world - m)]
    copies = [block.copy() for block in blocks]
    out = [np.empty(length, np.uint8) for _ in range(m)]
    try:
        comm.coded_reduce_scatter(blocks, out, sums, **options)
    finally:
        assert all(np.array_equal(a, b) for a, b in zip(blocks, copies, strict=True))
    own = [total for total in sums if total.owner == rank]
    for got, total in zip(out, own, strict=True):
        assert np.array_equal(got, summed(total, [length] * world, length))


def test_a_keeper_killed_in_the_middle(master: Master, spawn: Spawn) -> None:
    """PeerLost on all others, their blocks intact; the next group codes what it holds, bit for bit."""
    length = 2_000_000  # a second's worth at the rate
    victim = spawn("-c", PEER + VICTIM, master.address, str(length))

    def survive(index: int) -> None:
        with Communicator(master.address, role="keeper", min_islands=4, config=PATIENT) as comm:
            if index == 0:
                expect(victim, "in")
                threading.Timer(0.5, victim.kill).start()
            lost = ""
            while not lost:
                try:
                    code(comm, 2, length, rate_limit=4e6)
                except (PeerLost, UsageError) as error:  # or the group changed after it was looked at
                    lost = str(error)
            assert re.match(r"peer \d+ has left: coded_reduce_scatter|sum 0 has a block of rank 3", lost)
            assert comm.world_size == 3
            code(comm, 1, length)

    in_threads([partial(survive, index) for index in range(3)])


def test_what_cannot_be_coded(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        sums, one, two = rotated_sums(2, [[3]]), np.zeros(100, np.uint8), np.zeros(100, np.uint8)
        wrong: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
            ("out has room for 0", ([one], [], sums), {}),
            ("block 0 of this peer, which gives 0", ([], [two], sums), {}),
            ("block 0 has 100 bytes, block_bytes is 50", ([one], [two[:50]], sums), {"block_bytes": 50}),
            ("out 0 has 50 bytes, and a sum has 100", ([one], [two[:50]], sums), {}),
            ("share memory", ([one], [one], sums), {}),
            ("rate_limit=0", ([one], [two], sums), {"rate_limit": 0}),
            ("a coefficient=256", ([one], [two], [(0, [(1, 0, 256)])]), {}),
            ("rank 7, who is not there", ([one], [two], [CodedSum(7, (CodedTerm(0, 0, 1),))]), {}),
            ("two blocks of rank 1", ([one], [two], [(0, [(1, 0, 1), (1, 0, 1)])]), {}),
            ("somebody else than its owner", ([one], [two], [(0, [(0, 0, 1)])]), {}),
            ("nothing to sum up", ([one], [], []), {}),
            ("pass a list", (one, [two], sums), {}),
        ]
        for text, arguments, options in wrong:
            with pytest.raises(UsageError, match=text):
                comm.coded_reduce_scatter(*arguments, **options)
        mine = rotated_sums(2, [[3 + comm.rank]])
        with pytest.raises(MismatchError, match="the sums differ: their owners, blocks or coefficients"):
            comm.coded_reduce_scatter([one], [two], mine)
        length = 50 + comm.rank
        with pytest.raises(MismatchError, match="50 x uint8.*51 x uint8|51 x uint8.*50 x uint8"):
            comm.coded_reduce_scatter([one[:length]], [two[:length]], sums)
        comm.coded_reduce_scatter([one], [two], sums)

    together(master.address, 2, play)
    for rows in ([], [[1, 2]], [[1], [1]]):
        with pytest.raises(UsageError, match="for 2 peers"):
            rotated_sums(2, rows)
