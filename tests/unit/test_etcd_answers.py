"""Answers that no honest etcd gives: each is refused or followed by another endpoint, and none takes long."""

from __future__ import annotations

import base64
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pccl_py import ConnectError, DamagedError, EtcdStore, UsageError
from pccl_py.master import etcd_answers, etcd_gateway
from pccl_py.master.etcd_gateway import EtcdRefused, Gateway

HEADER = {"cluster_id": "14841639068965178418", "member_id": "1", "revision": "7", "raft_term": "2"}
SEAT = {"key": base64.b64encode(b"p/master").decode(), "value": "bWU=", "create_revision": "3", "lease": "9"}
GRANT = {"header": HEADER, "ID": "9", "TTL": "60"}
NOBODY = {"header": HEADER}
TAKEN = {"header": HEADER, "succeeded": True, "responses": [{"response_put": {"header": HEADER}}]}
OTHERS = {"header": HEADER, "responses": [{"response_range": {"kvs": [SEAT]}}]}
ANSWERS = [GRANT, NOBODY, TAKEN, OTHERS, {"result": {"header": HEADER, "ID": "9", "TTL": "60"}}]


def http(content: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.0 {status}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


@contextmanager
def server(answer: Callable[[socket.socket, bytes], None]) -> Iterator[str]:
    """An endpoint that reads each request and lets `answer` do the rest."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    answer(connection, connection.recv(1 << 16))
                except OSError:
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def says(value: object, status: str = "200 OK") -> Callable[[socket.socket, bytes], None]:
    data = http(value if isinstance(value, bytes) else json.dumps(value).encode(), status)
    return lambda connection, _: connection.sendall(data)


def decode_all(content: bytes) -> None:
    loaded = etcd_gateway.loads(content, what="it", bytes_max=1 << 20, depth_max=16)
    answer = etcd_answers.as_object(loaded)
    etcd_answers.cluster_of(answer)
    for decode in (
        etcd_answers.key_values,
        etcd_answers.transaction,
        etcd_answers.granted,
        etcd_answers.kept_alive,
    ):
        try:
            decode(answer)  # type: ignore[operator]
        except DamagedError:
            pass


def test_honest_answers() -> None:
    assert etcd_answers.granted(json.loads(json.dumps(GRANT))) == (9, 60)
    taken = etcd_answers.transaction(json.loads(json.dumps(TAKEN)))
    assert (taken.succeeded, taken.revision, taken.found) == (True, 7, [])
    others = etcd_answers.transaction(json.loads(json.dumps(OTHERS)))
    assert others.found[0][0] == etcd_answers.KeyValue(b"p/master", b"me", 3, 0, 9)
    assert etcd_answers.kept_alive(json.loads(json.dumps(ANSWERS[4]))) == 60


def test_damaged_bytes_are_refused() -> None:
    """Bits, cuts and copies: DamagedError, or a value of the right types."""
    chance = random.Random(7)
    for _ in range(3000):
        data = bytearray(json.dumps(chance.choice(ANSWERS)).encode())
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(data))
            data[at] = chance.choice([data[at] ^ 1 << chance.randrange(8), *b'"{}[],:0-.e'])
        if chance.random() < 0.2:
            data = data[: chance.randrange(len(data))]
        try:
            decode_all(bytes(data))
        except DamagedError:
            pass


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("header", "kvs", "responses", "succeeded", "ID", "TTL", "result", "error")


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), values))
def test_any_json_in_any_field(answer: dict[str, Any]) -> None:
    try:
        decode_all(json.dumps(answer).encode())
    except DamagedError:
        pass


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: b"HTTP/1.0 200 OK\r\n" + tail))
def test_any_bytes_where_http_belongs(data: bytes) -> None:
    try:
        etcd_gateway.parse(data)
    except (HTTPException, DamagedError, OSError):
        pass


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(lambda c, _: None, id="hangs up"),
        pytest.param(lambda c, _: c.sendall(b"\xff" * 100), id="no HTTP"),
        pytest.param(lambda c, _: c.sendall(b"HTTP/1.0 200 OK\r\nX: " + b"x" * (1 << 20)), id="long line"),
        pytest.param(lambda c, _: [c.sendall(b"x" * (1 << 20)) for _ in range(64)], id="never ends"),
        pytest.param(lambda c, _: [(c.sendall(b"H"), time.sleep(0.05)) for _ in range(200)], id="trickles"),
        pytest.param(says(b"[" * 10000), id="deep"),
        pytest.param(says({"header": {"cluster_id": "x"}}), id="no number"),
        pytest.param(says({}), id="empty"),
        pytest.param(says({"error": "etcdserver: no leader", "code": 14}, "503 no"), id="no leader"),
    ],
)
def test_the_next_endpoint_answers(hostile: Callable[[socket.socket, bytes], None]) -> None:
    with server(hostile) as bad, server(says(GRANT)) as good:
        began = time.monotonic()
        assert etcd_answers.granted(Gateway([bad, good]).call("lease/grant", {}, began + 5)) == (9, 60)
        assert time.monotonic() - began < 2.5
        with pytest.raises(ConnectError, match="etcd does not answer"):
            Gateway(bad).call("lease/grant", {}, time.monotonic() + 0.1)


def test_a_refusal_is_not_asked_again() -> None:
    asked: list[bytes] = []
    refusal = http(json.dumps({"error": "etcdserver: user name is empty", "code": 3}).encode(), "400 Bad")

    def refuse(connection: socket.socket, request: bytes) -> None:
        asked.append(request)
        connection.sendall(refusal)

    with server(refuse) as endpoint, pytest.raises(EtcdRefused, match="user name is empty"):
        EtcdStore(endpoint).campaign()
    assert len(asked) == 1


def test_members_of_two_clusters_are_not_one() -> None:
    other = {"header": HEADER | {"cluster_id": "5"}}
    with server(says(NOBODY)) as first, server(says(other)) as second:
        gateway = Gateway([first, second])
        assert gateway.call("kv/range", {}, time.monotonic() + 5) == NOBODY
        gateway._first = 1
        assert gateway.call("kv/range", {}, time.monotonic() + 5) == NOBODY


def test_an_election_that_only_claims_to_be_won_is_lost_in_time() -> None:
    """A server that answers everything alike: whoever serves by it stops at its lease's end."""
    told: list[str] = []

    class Told:
        def serve_until(self, monotonic_s: float) -> None:
            pass

        def fence(self, why: str) -> None:
            told.append(why)

    def play(connection: socket.socket, request: bytes) -> None:
        path = request.split(b" ")[1]
        granted = GRANT | {"TTL": "1"}
        answers: dict[bytes, object] = {b"/v3/lease/grant": granted, b"/v3/kv/txn": TAKEN}
        connection.sendall(
            http(json.dumps(answers.get(path, {"header": HEADER, "result": ANSWERS[1]})).encode())
        )

    with server(play) as endpoint:
        store = EtcdStore(endpoint, prefix="p")
        assert store.campaign(say=lambda text: None)
        store.attach(Told())
        until = time.monotonic() + 5
        while not told and time.monotonic() < until:
            time.sleep(0.01)
        assert "lease" in told[0] and store.keep("", b"1") == told[0]
        store.close()


@pytest.mark.parametrize(
    "endpoint", ["", "a:2379", "https://a:2379", "http://", "http://a:x", "http://a/b", "ftp://a"]
)
def test_wrong_endpoints(endpoint: str) -> None:
    with pytest.raises(UsageError, match="etcd"):
        EtcdStore(endpoint)


@pytest.mark.parametrize(
    "given", [{"prefix": ""}, {"prefix": "a/"}, {"prefix": "a\n"}, {"lease_s": 1}, {"lease_s": float("nan")}]
)
def test_wrong_settings(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="etcd"):
        EtcdStore("http://127.0.0.1:1", **given)


def test_a_standby_says_for_whom_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pccl_py.master.etcd_store.NOTICE_S", 0.0)
    said: list[str] = []
    with server(says({"header": HEADER, "kvs": [SEAT]})) as endpoint:
        store = EtcdStore(endpoint, prefix="p")
        assert not store.campaign(stop=lambda: bool(said), say=said.append)
    assert said == ["waiting to be the master of 'p' for 0 s: me is the master"]


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pccl_py.master.etcd_store.FIRST_ANSWER_S", 0.1)
    monkeypatch.setattr("pccl_py.master.etcd_store.CALL_S", 0.1)
    with pytest.raises(ConnectError, match="is it running, and are the endpoints right"):
        EtcdStore("http://127.0.0.1:1").campaign()
