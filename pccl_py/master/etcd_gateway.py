"""Calls to etcd's JSON gateway (v3, HTTP): each has a deadline, and reads an answer of bounded size.

An endpoint that fails in any way is followed by the next one, until the deadline.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Sequence
from http.client import HTTPException, HTTPResponse
from typing import cast
from urllib.parse import urlsplit

from ..errors import ConnectError, DamagedError, UsageError
from ..values.bounded_json import Json, dumps, loads
from .etcd_answers import as_object, cluster_of

ANSWER_BYTES_MAX = 8 << 20  # etcd takes requests of 1.5 MiB, and base64 makes a third more of them
DEPTH_MAX = 16
TRY_S = 0.5  # a member without a leader holds a request; another one may answer at once
AGAIN_S = 0.05  # after all endpoints have failed
PORT = 2379


class EtcdRefused(ConnectError):
    """etcd understood and said no; asking again, or another endpoint, would not help."""


class Gateway:
    """One etcd cluster, known by some of its members: "http://host:port" each. One thread at a time."""

    def __init__(self, endpoints: str | Sequence[str]) -> None:
        given = endpoints.split(",") if isinstance(endpoints, str) else list(endpoints)
        self._endpoints = [_host_and_port(endpoint.strip()) for endpoint in given]
        if not self._endpoints:
            raise UsageError("etcd: no endpoint is given; it is 'http://host:2379', or several of them")
        self._first = 0  # the one that answered last
        self._cluster: int | None = None
        self.text = ",".join(f"http://{host}:{port}" for host, port in self._endpoints)

    def again(self) -> Gateway:
        """The same for another thread."""
        return Gateway(self.text)

    def call(self, method: str, body: Json, until: float) -> dict[str, Json]:
        """The answer to POST /v3/`method`. until: a moment of time.monotonic().

        Raises EtcdRefused, or ConnectError when no endpoint has answered until then.
        """
        failures: dict[str, str] = {}
        request = dumps(body)
        while True:
            for turn in range(len(self._endpoints)):
                at = (self._first + turn) % len(self._endpoints)
                host, port = self._endpoints[at]
                try:
                    answer = self._ask(host, port, method, request, min(until, time.monotonic() + TRY_S))
                except (OSError, HTTPException, DamagedError, _Unavailable) as error:
                    failures[f"{host}:{port}"] = str(error) or type(error).__name__
                    continue
                self._first = at
                return answer
            if time.monotonic() + AGAIN_S >= until:
                why = "; ".join(f"{place}: {text}" for place, text in failures.items())
                raise ConnectError(f"etcd does not answer ({why})")
            time.sleep(AGAIN_S)

    def _ask(self, host: str, port: int, method: str, request: bytes, until: float) -> dict[str, Json]:
        head = f"POST /v3/{method} HTTP/1.0\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(request)}\r\n\r\n"
        status, content = parse(_exchange(host, port, head.encode() + request, until))
        answer = as_object(
            loads(content, what="etcd's answer", bytes_max=ANSWER_BYTES_MAX, depth_max=DEPTH_MAX)
        )
        if status != 200 or "error" in answer:
            text = str(answer.get("error", ""))[:200] or f"HTTP status {status}"
            raise EtcdRefused(f"etcd refused {method}: {text}") if 400 <= status < 500 else _Unavailable(text)
        cluster = cluster_of(answer)
        if self._cluster is None:
            self._cluster = cluster
        if cluster != self._cluster:
            raise _Unavailable("it is a member of another cluster than the endpoint that answered first")
        return answer


class _Unavailable(Exception):
    """This endpoint cannot now."""


def parse(data: bytes) -> tuple[int, bytes]:
    """Status and content of a whole answer. Raises HTTPException, or DamagedError."""
    response = HTTPResponse(cast(socket.socket, _Read(data)), method="POST")
    try:
        response.begin()
        return response.status, response.read(ANSWER_BYTES_MAX)
    except (ValueError, OverflowError) as error:
        raise DamagedError(f"no HTTP: {error}") from None
    finally:
        response.close()


class _Read:
    """What HTTPResponse wants of a socket, over bytes that have come already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def _exchange(host: str, port: int, request: bytes, until: float) -> bytes:
    """HTTP/1.0: the answer ends with the connection, so that one deadline holds for all of it."""

    def left() -> float:
        seconds = until - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("no answer in time")
        return seconds

    with socket.create_connection((host, port), left()) as connection:
        connection.sendall(request)
        parts: list[bytes] = []
        size = 0
        while size <= ANSWER_BYTES_MAX:
            connection.settimeout(left())
            part = connection.recv(1 << 16)
            if not part:
                return b"".join(parts)
            parts.append(part)
            size += len(part)
    raise DamagedError(f"an answer of more than {ANSWER_BYTES_MAX} bytes")


def _host_and_port(endpoint: str) -> tuple[str, int]:
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port or PORT
    except ValueError as error:
        raise UsageError(f"etcd endpoint {endpoint!r}: {error}; it is 'http://host:{PORT}'") from None
    if parts.scheme == "https":
        text = "is spoken to over http only; put a proxy that speaks TLS beside the master"
        raise UsageError(f"etcd endpoint {endpoint!r}: etcd {text}")
    if parts.scheme != "http" or not host or parts.path.strip("/") or parts.query or parts.username:
        raise UsageError(f"etcd endpoint {endpoint!r}: it is 'http://host:{PORT}', and nothing more")
    return host, port
