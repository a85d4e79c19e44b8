"""send and recv: every value, order and tags, what does not agree, and who is lost when one of them dies."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from pccl_py import (
    Cancelled,
    Communicator,
    Master,
    MismatchError,
    OperationTimeout,
    OpInfo,
    OrderError,
    PeerLost,
    UsageError,
    Work,
)
from pccl_py.tensors import DTYPE_CODES
from tests.conftest import Spawn
from tests.threads import in_threads

from .peers import PEER, QUICK, expect, together


@pytest.mark.parametrize("peers", [2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 1003, (1 << 20) + 3])
def test_every_dtype_to_everybody(master: Master, peers: int, count: int) -> None:
    """In a ring of pairs, and only those: with five peers most of them are no neighbours."""

    def value(name: str, sender: int, to: int) -> torch.Tensor:
        return ((torch.arange(count) + 3 * sender + 7 * to) % 100).to(getattr(torch, name))

    def play(comm: Communicator, index: int) -> None:
        rank = comm.rank
        names = DTYPE_CODES if count < 2000 else ["float32"]
        for step in range(1, peers):
            to, source = (rank + step) % peers, (rank - step) % peers
            for name in names:
                got = torch.empty(count, dtype=getattr(torch, name))
                sent = value(name, rank, to)
                work = comm.send(sent, to, async_op=True)
                info = comm.recv(got, source)
                assert isinstance(work, Work)
                assert work.wait(30).contributors == (comm.id,)
                assert torch.equal(got, value(name, source, rank))
                assert torch.equal(sent, value(name, rank, to))
                assert info.contributors == (comm.peers()[source].id,)
                assert info.bytes_received == got.nbytes
        comm.barrier()  # who leaves moves the ranks of others

    together(master.address, peers, play)


def test_the_others_need_not_call(master: Master) -> None:
    """Two of three exchange many, in order, while the third one waits at a barrier; then by PeerInfo."""

    def play(comm: Communicator, index: int) -> None:
        rank, got = comm.rank, np.zeros(3)
        if rank < 2:
            for turn in range(50):
                if rank == turn % 2:
                    comm.send(np.full(3, turn), 1 - rank)
                else:
                    comm.recv(got.view(np.int64), comm.peers()[1 - rank])
                    assert np.all(got.view(np.int64) == turn)
        comm.barrier()

    together(master.address, 3, play)


def test_tags_meet_whatever_the_order(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        tags = range(8)
        if comm.rank == 0:
            works = [comm.send([np.full(5, tag), np.ones(tag)], 1, tag=tag, async_op=True) for tag in tags]
        else:
            outs = {tag: [np.zeros(5, int), np.zeros(tag)] for tag in reversed(tags)}
            works = [comm.recv(out, 0, tag=tag, async_op=True) for tag, out in outs.items()]
        for work in works:
            work.wait(30)
        if comm.rank == 1:
            assert all(np.all(out[0] == tag) and np.all(out[1] == 1) for tag, out in outs.items())
        comm.update_topology()
        if comm.rank == 0:
            comm.send(np.ones(2), 1)
        else:
            comm.recv(out := np.zeros(2), 0)
            assert np.all(out == 1)
        comm.barrier()

    together(master.address, 2, play)


def test_wrong_arguments(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        two = np.zeros(2)
        with pytest.raises(UsageError, match="this peer itself"):
            comm.send(two, comm.rank)
        with pytest.raises(UsageError, match="this peer itself"):
            comm.recv(two, comm.peers()[comm.rank])
        with pytest.raises(UsageError, match="from_=7"):
            comm.recv(two, 7)
        with pytest.raises(UsageError, match="share memory"):
            comm.recv([two, two], 1 - comm.rank)
        with pytest.raises(UsageError, match="scope='pair'"):
            comm.all_reduce(two, scope="pair")  # type: ignore[call-overload]
        comm.barrier()

    together(master.address, 2, play)


def test_what_does_not_agree(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        rank = comm.rank
        with pytest.raises(MismatchError, match="3 x float64.*4 x float64|4 x float64.*3 x float64"):
            comm.send(np.zeros(3), 1) if rank == 0 else comm.recv(np.zeros(4), 0)
        with pytest.raises(OrderError, match="send and recv"):  # both want to receive
            comm.recv(np.zeros(3), 1 - rank)
        if rank == 0:
            with pytest.raises(OperationTimeout, match="send and recv, tag 5"):
                comm.send(np.zeros(3), 1, tag=5, timeout=0.3)
            comm.send(np.full(3, 2.5), 1)
        else:
            comm.recv(out := np.zeros(3), 0)
            assert np.all(out == 2.5)
            with pytest.raises(OperationTimeout):
                comm.recv(out, 0, tag=5)
        by_name = f"peer {comm.peers()[0].id} cancelled send and recv, call 3"
        if rank == 0:
            work = comm.send(np.ones(3), 1, async_op=True)
            work.cancel()
            with pytest.raises(Cancelled, match=by_name):
                work.wait(10)
        else:
            with pytest.raises(Cancelled, match=by_name):
                comm.recv(out, 0)
        comm.barrier()

    together(master.address, 2, play)


def test_from_whoever_sends_first(master: Master) -> None:
    """The info says who it was; messages of one sender stay in order, and so do the calls that take them."""

    def play(comm: Communicator, index: int) -> None:
        ids, rank = [peer.id for peer in comm.peers()], comm.rank
        if rank == 0:
            seen: dict[int, list[float]] = {peer: [] for peer in ids[1:]}
            for size in (0, 2, 300_001):
                for _ in ids[1:]:
                    info = comm.recv(out := np.zeros(size), None, tag=size)
                    assert isinstance(info, OpInfo)
                    seen[info.contributors[0]].append(float(out.sum()))
            for place, peer in enumerate(ids[1:], 1):
                assert seen[peer] == [0, 2 * place, 300_001 * place]
            outs = [np.zeros(1) for _ in range(30)]  # by turns from anybody and from the only one who sends
            works = [comm.recv(o, [None, 1][i % 2], async_op=True) for i, o in enumerate(outs)]
            for i, work in enumerate(works):
                assert isinstance(work, Work)
                assert work.wait(30).contributors == (ids[1],)
                assert outs[i][0] == i
        else:
            for size in (0, 2, 300_001):
                comm.send(np.full(size, float(rank)), 0, tag=size)
        if rank == 1:
            sends = [comm.send(np.full(1, float(i)), 0, async_op=True) for i in range(30)]
            for sent in sends:
                assert isinstance(sent, Work)
                sent.wait(30)
        comm.barrier()

    together(master.address, 4, play)


def test_a_sender_that_nobody_names_may_not_come(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        if comm.rank == 0:
            out = np.zeros(2)
            with pytest.raises(OperationTimeout, match="recv from any peer, tag 3: nobody has sent"):
                comm.recv(out, None, tag=3, timeout=0.3)
            work = comm.recv(out, None, async_op=True)
            assert isinstance(work, Work)
            with pytest.raises(UsageError, match="waits for a sender"):
                comm.update_topology()
            work.cancel()
            with pytest.raises(Cancelled):
                work.wait(10)
        comm.barrier()
        if comm.rank == 0:
            with pytest.raises(MismatchError, match="3 x float64"):
                comm.recv(out, None, tag=3)
            # The other one leaves as soon as its call has failed: inside this recv, or before it.
            with pytest.raises(PeerLost, match="left during recv from any peer|nobody is there to send"):
                comm.recv(out, None)
            with pytest.raises(PeerLost, match="nobody is there to send"):
                comm.recv(out, None)
        else:
            with pytest.raises(MismatchError, match="2 x float64"):
                comm.send(np.zeros(3), 0, tag=3)

    together(master.address, 2, play)


LOOP = """
comm = Communicator(address, min_islands=3, config=config, island="victim")
say("in")
first = min((p for p in comm.peers() if p.id != comm.id), key=lambda p: p.id)
turn = 0
while True:
    comm.send(np.full(300_001, turn), first, tag=1)
    turn += 1
"""


def test_a_killed_sender_is_lost_for_its_receiver_alone(master: Master, spawn: Spawn) -> None:
    """A third one dies inside its transfer: the transfers of the other two go on, each value right."""
    victim = spawn("-c", PEER + LOOP, master.address)
    ready = threading.Event()

    def watch() -> None:
        expect(victim, "in")
        ready.set()

    def survive(index: int) -> tuple[int, int]:
        with Communicator(master.address, min_islands=3, config=QUICK) as comm:
            assert ready.wait(30)
            return _survive(comm, victim)

    results = in_threads([partial(survive, 0), partial(survive, 1), watch])[:2]
    assert sorted(results) == [(0, 40), (1, 40)]


def _survive(comm: Communicator, victim: Any) -> tuple[int, int]:
    """(losses, turns in which all values were right). The victim sends to the one with the smaller id."""
    sender = next(p for p in comm.peers() if p.island == "victim")
    other = next(p for p in comm.peers() if p.id not in (comm.id, sender.id))
    first = comm.id < other.id
    lost = 0
    for turn in range(40):
        if first and turn < 20:
            comm.recv(got := np.empty(300_001, int), sender, tag=1)
            assert np.all(got == turn)
            if turn == 19:
                victim.kill()
        elif first and not lost:
            with pytest.raises(PeerLost, match=f"peer {sender.id}"):
                for _ in range(100):
                    comm.recv(np.empty(300_001, int), sender, tag=1)
            lost = 1
        if first == (turn % 2 == 0):
            comm.send(np.full(200_003, turn), other, tag=2)
        else:
            comm.recv(mine := np.empty(200_003, int), other, tag=2)
            assert np.all(mine == turn)
    return lost, 40
