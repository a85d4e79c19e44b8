"""A keeper that is short of descriptors or of memory. Its loop runs on a thread here."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pccl_py.snapshot import channel, limits, memory, messages
from pccl_py.snapshot.server import Server

UNIT = limits.BUFFER_UNIT


class ShortOfDescriptors(socket.socket):
    """A listener that nobody is accepted from, as long as it is `short`."""

    short = False
    asked = 0

    def accept(self) -> tuple[socket.socket, Any]:
        if self.short:
            self.asked += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[ShortOfDescriptors]:
    with ShortOfDescriptors(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        server = Server(listening, "run", "host", 60.0)
        thread = threading.Thread(target=server.run)
        thread.start()
        yield listening
        server.stop()
        thread.join()


def dial(listener: socket.socket) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(20)
    connection.connect(listener.getsockname())
    return connection


def attached(listener: socket.socket, trainer: str) -> socket.socket:
    connection = dial(listener)
    assert connection.recv(100) == channel.greeting()
    connection.send(channel.greeting())
    assert isinstance(asked(connection, messages.Attach(trainer, 0, 0, 60.0, None)), messages.Attached)
    return connection


def asked(connection: socket.socket, message: messages.Message) -> messages.Message:
    channel.send(connection, message)
    answer, fds = channel.receive(connection)
    channel.close_all(fds)
    return answer


def test_a_keeper_without_descriptors_waits_for_some(listener: ShortOfDescriptors) -> None:
    listener.short = True
    with dial(listener) as connection:
        time.sleep(0.7)
        assert 1 <= listener.asked <= 3  # it does not ask all the time
        listener.short = False
        assert connection.recv(100) == channel.greeting()


@pytest.fixture
def half_filled(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A machine with four units of memory, whose buffers stop when they have half their pages, until it is
    said. The event: one is there.
    """
    filling: list[int] = []
    there, go_on = threading.Event(), threading.Event()

    def fill(fd: int, count: int, wanted: Callable[[], bool]) -> bool:
        filling.append(fd)
        os.posix_fallocate(fd, 0, count // 2)
        there.set()
        go_on.wait(20)
        return wanted()

    monkeypatch.setattr(memory, "fill", fill)
    monkeypatch.setattr(memory, "available", lambda: 4 * UNIT - sum(map(memory.held, filling)))
    yield there
    go_on.set()


def test_pages_that_a_buffer_has_are_counted_once(
    listener: ShortOfDescriptors, half_filled: threading.Event
) -> None:
    """Two of four units are on their way, one of them is there: two are left, not one."""
    with attached(listener, "a") as first, attached(listener, "b") as second:
        channel.send(first, messages.Reserve(0, 2 * UNIT))
        assert half_filled.wait(20)
        told = asked(second, messages.Attach("b", 0, 0, 60.0, None))
        assert isinstance(told, messages.Refused)  # attached already; so the keeper has heard of the first
        refused = asked(second, messages.Reserve(0, 3 * UNIT))
        assert isinstance(refused, messages.Refused)
        assert (refused.code, refused.needed, refused.available) == ("memory", 3 * UNIT, 2 * UNIT)


def test_parities_are_part_of_what_a_state_needs(
    listener: ShortOfDescriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has no room for them hears it before the training begins, with the size."""
    monkeypatch.setattr(memory, "available", lambda: 4 * UNIT)
    for parities, fits in ((3 * UNIT, False), (2 * UNIT, True)):
        with dial(listener) as connection:
            assert connection.recv(100) == channel.greeting()
            connection.send(channel.greeting())
            told = asked(connection, messages.Attach(f"t{parities}", UNIT, parities, 60.0, None))
            assert isinstance(told, messages.Attached) == fits
            if isinstance(told, messages.Refused):
                assert (told.code, told.needed, told.available) == ("memory", 5 * UNIT, 4 * UNIT)
                assert f"with {parities >> 20} MiB for others' parities" in told.text


@pytest.mark.parametrize("waits", [messages.AwaitCoded(5, 30.0), messages.Fetch(30.0, 0)])
def test_who_waits_and_frees_what_it_waits_for_ends_itself_alone(
    listener: ShortOfDescriptors, waits: messages.Message
) -> None:
    """The keeper looked for what was gone, and ended with what other trainers had."""
    with attached(listener, "a") as first, attached(listener, "b") as second:
        channel.send(first, waits)
        assert isinstance(asked(first, messages.Detach(True)), messages.Detached)
        time.sleep(0.5)
        told = asked(second, messages.AskSummary())
        assert isinstance(told, messages.Summary) and [one.trainer for one in told.trainers] == ["b"]
