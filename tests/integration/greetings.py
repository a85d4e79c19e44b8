"""How connections begin, for tests that speak for themselves."""

from __future__ import annotations

import socket


def greeting_of(address: str) -> tuple[socket.socket, bytes]:
    """A connection, and what who listens there says first."""
    host, port = address.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), 5)
    connection.settimeout(5)
    said = b""
    while len(said) < 32 and (part := connection.recv(32 - len(said))):
        said += part
    return connection, said
