"""Strangers who connect and talk nonsense."""

from __future__ import annotations

import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import numpy as np
import pytest

from pccl_py import Communicator, Master
from tests.threads import in_threads

from .greetings import greeting_of
from .logged import logged
from .peers import QUICK, together


def hostile(seed: int, version: bytes) -> Iterator[bytes]:
    """Garbage, half a message, huge lengths; some of it behind a proper hello."""
    draw = random.Random(seed)
    hello = b"PCCLpy\r\n" + version + bytes(6) + draw.randbytes(16)
    yield b""
    yield hello[: draw.randrange(32)]
    yield hello
    for _ in range(30):
        start = hello if draw.random() < 0.8 else b""
        length = draw.choice([0, 1, 16, 2**31 - 1, 2**32 - 1, draw.randrange(2000)])
        head = length.to_bytes(4, "little") + draw.randbytes(draw.randrange(40))
        yield start + head + draw.randbytes(draw.randrange(2000))


def test_strangers_hurt_nobody(master: Master) -> None:
    """They attack the master's port and a peer's while two peers reduce; only their connections die."""

    connection, said = greeting_of(master.address)
    connection.close()
    version = said[8:10]

    def attack(address: str, seed: int) -> None:
        host, port = address.rsplit(":", 1)
        for words in hostile(seed, version):
            with suppress(OSError), socket.create_connection((host, int(port)), 5) as connection:
                connection.sendall(words)
                if seed % 2:
                    connection.settimeout(0.01)
                    connection.recv(100)

    def play(comm: Communicator, index: int) -> int:
        addresses = [master.address, *(address for peer in comm.peers() for address in peer.addresses)]
        if index:
            attackers = [
                threading.Thread(target=attack, args=(address, seed))
                for seed in range(2)
                for address in addresses
            ]
            for attacker in attackers:
                attacker.start()
        steps = 0
        begin = time.monotonic()
        going = np.ones(1)
        while going[0]:
            array = np.full(10_000, 1.0)
            comm.all_reduce(array)
            assert np.all(array == 2)
            going[0] = time.monotonic() - begin < 1.5
            comm.all_reduce(going, "min")
            steps += 1
        if index:
            for attacker in attackers:
                attacker.join()
        return steps

    assert min(together(master.address, 2, play)) > 10
    assert master.status()["view"] >= 1


def test_strangers_do_not_fill_the_log(master: Master, caplog: pytest.LogCaptureFixture) -> None:
    """Each is counted once, whether it was seen to hang up or to reset (what it had not read was lost)."""
    host, port = master.address.rsplit(":", 1)
    ours = set()
    for _ in range(200):
        with socket.create_connection((host, int(port)), 5) as stranger:
            ours.add(stranger.getsockname()[1])

    def told() -> list[int]:
        why = re.compile("went away: .*(hung up without a greeting|Connection reset by peer)")
        lines = [r.getMessage() for r in caplog.records if why.search(r.getMessage())]
        named = {line: int(line.split(" went away: ")[0].rsplit(":", 1)[1]) for line in lines}
        lines = [line for line in lines if named[line] in ours]  # those of the test before may be told late
        return [int(line.split()[0].replace("a", "1")) for line in lines]

    deadline = time.monotonic() + 10
    while sum(told()) < 200 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sum(told()) == 200
    assert len(told()) < 20


def test_an_address_that_takes_its_places_keeps_nobody_else_out(
    master: Master, caplog: pytest.LogCaptureFixture
) -> None:
    """At the master and at a peer: others still get in, and the log says who was turned away."""
    held: list[socket.socket] = []

    def crowd(address: str) -> None:
        host, port = address.rsplit(":", 1)
        for _ in range(300):
            held.append(socket.create_connection((host, int(port)), 5, source_address=("127.0.0.9", 0)))
        held[-1].settimeout(5)
        with suppress(ConnectionResetError):
            assert held[-1].recv(1) == b""  # turned away without a word

    def reduce(comm: Communicator) -> None:
        array = np.full(10_000, 1.0)
        comm.all_reduce(array)
        assert np.all(array == 2)

    def host(comm: Communicator) -> None:
        while comm.world_size < 2:
            comm.update_topology()
        reduce(comm)

    def join() -> None:
        with Communicator(master.address, config=QUICK, timeout=20) as comm:
            reduce(comm)

    with Communicator(master.address, config=QUICK) as first:
        crowd(master.address)
        crowd(first.peers()[0].addresses[0])
        in_threads([partial(host, first), join])
    for connection in held:
        connection.close()
    assert len(logged(caplog, "from its address have not said yet who they are", 2)) >= 2
