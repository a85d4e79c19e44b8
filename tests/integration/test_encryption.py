"""Runs with a secret: every connection is TLS, and who does not know the secret disturbs nobody."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pccl_py import AuthenticationError, Communicator, Config, Master
from tests.conftest import Spawn
from tests.threads import in_threads

from .greetings import greeting_of
from .peers import IMPATIENT, PEER, QUICK, expect, together

VICTIM = """
comm = Communicator(address, secret_file=sys.argv[2], min_islands=3, config=config, transport="tcp")
for step in range(1000000):
    comm.all_reduce(np.full(1 << 20, 100.0))
    if step == 5: say("ready")
"""


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "run.key"
    path.touch(mode=0o600)
    path.write_text("a secret that the tests share\n")
    return path


@pytest.fixture
def sealed(secret: Path) -> Iterator[Master]:
    with Master(secret_file=secret, config=QUICK) as running:
        yield running


def greet(address: str) -> socket.socket:
    """As a peer that knows a secret does; TLS would follow."""
    connection, said = greeting_of(address)
    connection.sendall(said[:10] + bytes([said[10] ^ 2]) + bytes(5) + os.urandom(16))
    return connection


def test_a_killed_peer_costs_one_repetition(sealed: Master, secret: Path, spawn: Spawn) -> None:
    victim = spawn("-c", PEER + VICTIM, sealed.address, str(secret))
    ready = threading.Event()

    def watch() -> None:
        expect(victim, "ready")
        ready.set()

    def survive(index: int) -> int:
        options = {"min_islands": 3, "config": QUICK, "transport": "tcp"}
        with Communicator(sealed.address, secret_file=secret, **options) as comm:  # type: ignore[arg-type]
            deadline, after = time.monotonic() + 40, 0
            while after < 10 and time.monotonic() < deadline:
                array = np.full(1 << 20, 10.0**index)
                info = comm.all_reduce(array)
                assert np.all(array == (111 if len(info.contributors) == 3 else 11))
                after += len(info.contributors) == 2
                if index == 0 and ready.is_set():
                    victim.kill()
            return after

    assert in_threads([partial(survive, 0), partial(survive, 1), watch])[:2] == [10, 10]


def test_what_travels_cannot_be_read(sealed: Master, secret: Path) -> None:
    """The greeting tells that there is a secret; a peer without it hears nothing more."""
    connection, said = greeting_of(sealed.address)
    with connection:
        assert said[:8] == b"PCCLpy\r\n"
        assert said[10] & 1
    for options in ({}, {"config": IMPATIENT}):
        with pytest.raises(AuthenticationError, match="asks for the run's secret"):
            Communicator(sealed.address, timeout=10, **options)  # type: ignore[arg-type]


def test_the_variable_names_the_file(
    sealed: Master, secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PCCL_SECRET_FILE", str(secret))
    with Communicator(sealed.address, timeout=10) as comm:
        assert comm.world_size == 1
    with Master() as second, Communicator(second.address, config=Config.load()) as comm:
        assert comm.world_size == 1
    with pytest.raises(AuthenticationError):
        Communicator(sealed.address, insecure=True, timeout=10)


def test_nobody_is_disturbed(sealed: Master, secret: Path) -> None:
    """Plain bytes, half handshakes and silence at the master's and a peer's port, while two peers reduce."""

    def attack(address: str, held: list[socket.socket]) -> None:
        for words in (b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01" + bytes(200), os.urandom(3000)):
            with suppress(OSError):
                held.append(greet(address))
                held[-1].sendall(words)
            with suppress(OSError), greet(address) as connection:
                connection.sendall(words)

    def play(comm: Communicator, index: int) -> int:
        addresses = [sealed.address, *(address for peer in comm.peers() for address in peer.addresses)]
        held: list[socket.socket] = []
        attackers = [threading.Thread(target=attack, args=(a, held)) for a in addresses if index]
        for attacker in attackers:
            attacker.start()
        begin, steps, going = time.monotonic(), 0, np.ones(1)
        while going[0]:
            array = np.full(100_000, 1.0)
            comm.all_reduce(array)
            assert np.all(array == 2)
            going[0] = time.monotonic() - begin < 1
            comm.all_reduce(going, "min")
            steps += 1
        for attacker in attackers:
            attacker.join()
        for connection in held:
            connection.close()
        assert comm.world_size == 2
        comm.all_reduce(going)  # nobody leaves before both have looked
        return steps

    assert min(together(sealed.address, 2, play, secret_file=secret, transport="tcp")) > 3


# Of nobody: it was made for this test.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBnDCCAUGgAwIBAgIUZVgD5q2/Gu5EI+QKk3L3XK2yPpYwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMjA4MDQxN1oYDzIxMjYxMDI5
MDgwNDE3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAS1TqDm9Neq7dbOG3Co7c38BO2yhp1OUt5qo36R3vQ9cZ5U+hsUKzNo
WcJB/ogDUflpFeolelx2/Qcg+bOcZQMAo28wbTAdBgNVHQ4EFgQUkxXaaFM28xNX
/G2EpzA+WEtqrHswHwYDVR0jBBgwFoAUkxXaaFM28xNX/G2EpzA+WEtqrHswDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSQAwRgIhAMJWiQMl7FOKzKfFDjI2aNQIhcz3jtp9e9FKviD9rpckAiEA
3aEvpjCOfYTClMI2vnSiHN2LBFi/65n2rWSd9I7JgUw=
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgJ5nOwHx6exnIql0O
NREwhie1YqUZTFzlDt8bogK1nZihRANCAAS1TqDm9Neq7dbOG3Co7c38BO2yhp1O
Ut5qo36R3vQ9cZ5U+hsUKzNoWcJB/ogDUflpFeolelx2/Qcg+bOcZQMA
-----END PRIVATE KEY-----
"""


def show_a_certificate(listener: socket.socket, folder: Path) -> None:
    """Greets as one who knows the secret, and then offers TLS by a certificate alone."""
    (folder / "own.pem").write_text(CERTIFICATE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "own.pem")
    connection, _ = listener.accept()
    with connection, suppress(OSError):
        said = connection.recv(32, socket.MSG_WAITALL)
        connection.sendall(said[:10] + bytes([said[10] ^ 2]) + bytes(5) + os.urandom(16))
        with context.wrap_socket(connection, server_side=True) as sealed:
            sealed.recv(100)


def test_a_certificate_proves_nothing(secret: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=show_a_certificate, args=(listener, tmp_path), daemon=True).start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(AuthenticationError, match="certificate verify failed"):
            Communicator(address, secret_file=secret, config=IMPATIENT, timeout=10)


DIES_IN_THE_HANDSHAKE = """
import socket
host, port = address.rsplit(":", 1)
held = []
for _ in range(20):
    held.append(socket.create_connection((host, int(port)), 5))
    said = held[-1].recv(32)
    greeting = said[:10] + bytes([said[10] ^ 2]) + bytes(5) + os.urandom(16)
    held[-1].sendall(greeting + bytes([22, 3, 1, 2, 0, 1]))
say("there")
time.sleep(60)
"""


def test_a_peer_dies_while_it_shakes_hands(sealed: Master, secret: Path, spawn: Spawn) -> None:
    dying = spawn("-c", PEER + DIES_IN_THE_HANDSHAKE, sealed.address)
    expect(dying, "there")
    dying.kill()

    def play(comm: Communicator, index: int) -> None:
        array = np.full(1000, 1.0 + index)
        comm.all_reduce(array)
        assert np.all(array == 3)

    together(sealed.address, 2, play, secret_file=secret)


def test_a_library_that_is_not_there(secret: Path, spawn: Spawn) -> None:
    """The error names the file and the next step; without a secret nobody misses it."""
    source = (
        PEER
        + """
try: Master(secret_file=address, config=Config(libssl="/no/such/libssl.so.3"))
except UsageError as error: say("refused", error)
with Master(): say("without")
"""
    )
    process = spawn("-c", source, str(secret))
    why = expect(process, "refused")
    assert "/no/such/libssl.so.3" in why
    assert "PCCL_LIBSSL" in why
    expect(process, "without")
