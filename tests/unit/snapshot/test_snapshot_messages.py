"""Messages between trainers and keepers: exact inverses, and any other bytes are refused."""

from __future__ import annotations

import json
import socket
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pccl_py import PcclError
from pccl_py.errors import ProtocolError, VersionError
from pccl_py.snapshot import channel, limits, messages

step = st.integers(-1, limits.STEP_MAX)
taken = st.integers(0, limits.STEP_MAX)
count = st.integers(0, limits.BUFFER_BYTES_MAX)
number = st.integers(0, 1)
crc = st.integers(0, 2**32 - 1)
name = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=limits.NAME_CHARS_MAX)
text = st.text(max_size=100)
slot = st.builds(
    messages.Slot,
    state=st.sampled_from(messages.STATES),
    capacity=count,
    step=step,
    bytes=count,
    table_bytes=st.integers(0, limits.TABLE_BYTES_MAX),
    crc32=crc,
)
MESSAGES = st.one_of(
    st.builds(
        messages.Attach,
        trainer=name,
        bytes=count,
        parities=count,
        orphan_s=st.floats(0, 1e6),
        handed=st.none() | slot,
    ),
    st.builds(messages.Attached, committed=st.integers(-1, 1), slots=st.lists(slot, max_size=2).map(tuple)),
    st.builds(messages.Reserve, slot=number, bytes=count),
    st.builds(messages.Begin, slot=number, step=taken),
    st.builds(messages.Complete, slot=number, step=taken, bytes=count, crc32=crc),
    st.builds(messages.Forget, step=step, again=st.booleans()),
    st.builds(
        messages.Protect,
        master=text,
        secret_file=text,
        encrypt=st.booleans(),
        insecure=st.booleans(),
        run_name=text,
        listen=text,
        advertise=text,
        domain=name,
        parity=st.integers(1, 255),
        rate=count,
    ),
    st.builds(messages.AwaitCoded, step=taken, seconds=st.floats(0, 1e6)),
    st.builds(
        messages.Coded,
        step=step,
        losses=st.integers(0, 255),
        fault=text,
        parities=count,
        identical=count,
        unchanged=count,
    ),
    st.builds(messages.Fetch, seconds=st.floats(0, 1e6), bytes=count),
    st.builds(messages.Fetched, step=step),
    st.builds(
        messages.Refused, code=st.sampled_from(["gone", "none"]), text=text, needed=count, available=count
    ),
    st.builds(messages.Detach, free=st.booleans()),
    st.builds(messages.Free, force=st.booleans()),
    st.just(messages.AskSummary()),
)


@given(MESSAGES)
def test_what_is_encoded_is_decoded(message: messages.Message) -> None:
    data = messages.encode(message)
    assert len(data) <= limits.MESSAGE_BYTES_MAX
    assert messages.decode(data) == message


def refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        messages.decode(data)


def decoded_or_refused(data: bytes) -> None:
    try:
        message = messages.decode(data)
    except ProtocolError:
        return
    assert messages.decode(messages.encode(message)) == message


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    decoded_or_refused(data)


@given(MESSAGES, st.data())
def test_a_message_that_was_changed(message: messages.Message, data: st.DataObject) -> None:
    raw = bytearray(messages.encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    decoded_or_refused(bytes(raw))


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(MESSAGES, st.data(), junk)
def test_a_field_of_another_kind(message: messages.Message, data: st.DataObject, value: Any) -> None:
    raw = json.loads(messages.encode(message))
    raw[data.draw(st.sampled_from(sorted(raw)))] = value
    decoded_or_refused(json.dumps(raw).encode())


def test_what_no_message_has() -> None:
    for text in (
        b"",
        b"{}",
        b"[]",
        b'{"is":"Nobody"}',
        b'{"is":["Begin"]}',
        b'{"is":"Begin"}',
        b'{"is":"Begin","slot":2,"step":1}',
        b'{"is":"Begin","slot":0,"step":1.0}',
        b'{"is":"Begin","slot":true,"step":1}',
        b'{"is":"Begin","slot":0,"step":1,"more":1}',
        b'{"is":"Begin","slot":0,"slot":0,"step":1}',
        b'{"is":"Detach","free":1}',
        b'{"is":"Attach","trainer":"a\\nb","bytes":0,"parities":0,"orphan_s":1,"handed":null}',
        b'{"is":"Attach","trainer":"","bytes":0,"parities":0,"orphan_s":1,"handed":null}',
        b'{"is":"Attach","trainer":"a","bytes":-1,"parities":0,"orphan_s":1,"handed":null}',
        b'{"is":"Attach","trainer":"a","bytes":0,"parities":0,"orphan_s":1e300,"handed":null}',
        b"[" * 100_000,
        b'{"is":"' + b"a" * limits.MESSAGE_BYTES_MAX + b'"}',
    ):
        refused(text)
    assert len(fields(messages.Begin)) == 2


def test_the_longest_summary_fits_into_a_message() -> None:
    name = "\U0001f600" * limits.NAME_CHARS_MAX
    one = messages.Trainer(name, 1 << 40, 1e9, limits.STEP_MAX, 1e9, 1 << 46, 1 << 46)
    messages.encode(messages.Summary(name, name, 1, (one,) * limits.TRAINERS_MAX))


@pytest.mark.parametrize("data", [b"", b"pccl-keeper", b"pccl-keeper -1", b"GET / HTTP/1.1", b"\0" * 50])
def test_something_else_at_the_socket(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        channel.check_greeting(data, "it")


def test_another_version_is_told_apart() -> None:
    channel.check_greeting(channel.greeting(), "it")
    with pytest.raises(VersionError, match=rf"version 99 .* release {limits.PROTOCOL}:.*snapshots free"):
        channel.check_greeting(b"pccl-keeper 99", "it")


def test_a_packet_too_long_and_descriptors_nobody_asked_for() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        left.send(b"x" * (limits.MESSAGE_BYTES_MAX + 1))
        with pytest.raises(ProtocolError):
            channel.receive_raw(right)
        channel.send_raw(left, b"a", [0] * (limits.FDS_MAX + 7))
        with pytest.raises(ProtocolError):
            channel.receive_raw(right)
        channel.send_raw(left, b"{}", [0, 1])
        with pytest.raises(PcclError):
            channel.receive(right)
