"""Where the master should be, and who is there instead."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from pccl_py import Communicator, ConnectError, Master, UsageError, VersionError

from .peers import IMPATIENT


def test_nobody_listens(free_port: int) -> None:
    address = f"localhost:{free_port}"
    with pytest.raises(ConnectError) as caught:
        Communicator(address, config=IMPATIENT)
    text = str(caught.value)
    assert address in text and "127.0.0.1" in text and "refused" in text.lower()
    assert "python -m pccl_py master" in text


def test_no_such_host() -> None:
    with pytest.raises(ConnectError, match="no-such-host.invalid"):
        Communicator("no-such-host.invalid:1", insecure=True)


@pytest.mark.parametrize(
    "address", ["", "localhost", "localhost:", "localhost:x", "localhost:70000", None, 3]
)
def test_no_address(address: Any) -> None:
    with pytest.raises(UsageError):
        Communicator(address)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (":48148", "names no host: write 'host:port'"),
        ("[]:48148", "names no host"),
        ("localhost:0", "nobody listens on port 0"),
        ("[::1]:0", "nobody listens on port 0"),
    ],
)
def test_no_address_to_dial(address: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Communicator(address, timeout=1)


@contextmanager
def service(answer: bytes, *, hang_up: bool) -> Iterator[str]:
    """Another program on the port: it says `answer` to everybody."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections: list[socket.socket] = []

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connections.append(connection)
                    connection.sendall(answer)
                    if hang_up:
                        connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for connection in connections:
            connection.close()


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3, b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n" * 3]
)
def test_another_service_answers(answer: bytes) -> None:
    with service(answer, hang_up=False) as address, pytest.raises(ConnectError) as caught:
        Communicator(address, config=IMPATIENT, timeout=10)
    assert address in str(caught.value)


def test_somebody_hangs_up_at_once() -> None:
    with service(b"", hang_up=True) as address, pytest.raises(ConnectError, match=r"127\.0\.0\.1"):
        Communicator(address, config=IMPATIENT, timeout=10)


def test_somebody_who_never_answers() -> None:
    with service(b"", hang_up=False) as address:
        begin = time.monotonic()
        with pytest.raises(ConnectError, match="connected, but no answer came to our greeting"):
            Communicator(address, config=IMPATIENT, timeout=1)
        assert time.monotonic() - begin < 5


@contextmanager
def dropped_dials() -> Iterator[str]:
    """A port whose queue is full: the kernel drops who dials it, as a way that is cut does."""
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        time.sleep(0.1)
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.deadline(30)
def test_a_way_that_is_cut_is_no_wrong_port() -> None:
    with dropped_dials() as address:
        with pytest.raises(
            ConnectError, match="no answer; is the address right, and does a firewall"
        ) as said:
            Communicator(address, timeout=5)
        assert address in str(said.value) and "connected" not in str(said.value)


@pytest.mark.deadline(30)
def test_behind_another_address_somebody_answers(master: Master) -> None:
    """The first one is a master that is stopped: its port answers, and nobody else."""
    with service(b"", hang_up=False) as silent:
        with Communicator(f"{silent},{master.address}", timeout=10) as comm:
            assert comm.world_size == 1


def test_another_version(master: Master) -> None:
    """A master that says hello as ours does, but of a later version."""
    host, port = master.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 5) as ours:
        ours.sendall(b"x" * 0)
        ours.settimeout(5)
        hello = bytearray(ours.recv(32, socket.MSG_WAITALL))
    assert hello[:8] == b"PCCLpy\r\n"
    hello[8:10] = (99).to_bytes(2, "little") if hello[8] else (99).to_bytes(2, "big")
    with service(bytes(hello), hang_up=False) as address, pytest.raises(VersionError, match="99"):
        Communicator(address, config=IMPATIENT, timeout=10)


def test_a_port_that_is_taken(master: Master) -> None:
    with pytest.raises(ConnectError, match=r"cannot listen on 127\.0\.0\.1"):
        Master(master.address)
