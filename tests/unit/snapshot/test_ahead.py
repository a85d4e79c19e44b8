"""Memory that is made before what was lost is on its way."""

from __future__ import annotations

import fcntl
import os
import time
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

from pccl_py.snapshot import memory, messages
from pccl_py.snapshot.ahead import RoomsAhead
from pccl_py.snapshot.bringing import Bringing
from pccl_py.snapshot.calls import Calls
from pccl_py.snapshot.control import Record
from pccl_py.snapshot.limits import BUFFER_UNIT
from pccl_py.snapshot.populating import Populating
from pccl_py.snapshot.protection import Protection

COUNT = 3 * BUFFER_UNIT


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def rooms() -> tuple[RoomsAhead, Calls]:
    calls = Calls()
    return RoomsAhead(Populating(calls)), calls


def run_until_filled(calls: Calls, room: Any) -> None:
    until = time.monotonic() + 20
    while not room._over.is_set():
        assert time.monotonic() < until
        calls.run()
        time.sleep(0.001)


@pytest.mark.parametrize("count", [COUNT - BUFFER_UNIT, COUNT, COUNT + 2 * BUFFER_UNIT])
def test_it_has_the_size_that_is_needed_at_last_and_all_its_pages(count: int) -> None:
    ahead, calls = rooms()
    ahead.expect("t", COUNT - 7)
    ahead.expect("t", 100 * COUNT)  # its trainer asks once more
    room = ahead.pop("t")
    assert room is not None and ahead.pop("t") is None
    run_until_filled(calls, room)
    fd = room.take(count, 10)
    assert memory.size_of(fd) == count  # and nobody can change that
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & memory.SIZE_SEALS == memory.SIZE_SEALS
    assert memory.held(fd) == count
    os.close(fd)


@pytest.mark.parametrize("filled", [False, True])
def test_what_nobody_wants_any_more_is_freed(filled: bool) -> None:
    ahead, calls = rooms()
    before = descriptors()
    ahead.expect("t", COUNT)
    room = ahead._rooms["t"]
    if filled:
        run_until_filled(calls, room)
        assert descriptors() == before + 1
    ahead.give_up("t")
    run_until_filled(calls, room)
    assert descriptors() == before and ahead.pop("t") is None
    assert room.take(COUNT, 0.01) == -1


@pytest.mark.parametrize("just_then", [False, True])
def test_what_comes_too_late_is_freed(just_then: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead, calls = rooms()
    before = descriptors()
    ahead.expect("t", COUNT)
    room = ahead.pop("t")
    assert room is not None
    if just_then:
        run_until_filled(calls, room)
        monkeypatch.setattr(room._over, "wait", lambda timeout_s: False)
    else:
        assert room.take(COUNT, 0.0) == -1
        run_until_filled(calls, room)
    fd = room.take(COUNT, 0.0)
    if fd >= 0:  # it came as the wait was over
        os.close(fd)
    assert descriptors() == before


def test_where_there_is_no_memory_it_is_made_when_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead, _ = rooms()
    monkeypatch.setattr(memory, "available", lambda: COUNT - 1)
    ahead.expect("t", COUNT)
    assert ahead.pop("t") is None
    ahead.expect("t", 0)  # its size is unknown
    assert ahead.pop("t") is None


def test_a_trainer_that_waits_for_what_it_lost_has_room_ahead() -> None:
    ahead, calls = rooms()
    holding: Any = SimpleNamespace(newest=None, trainer="t")
    protection, said = Protection({"t": holding}, lambda: {"t"}, 60.0, ahead), []
    protection.fetch("t", messages.Fetch(30.0, COUNT), said.append)
    room = ahead._rooms["t"]
    run_until_filled(calls, room)
    coding: Any = SimpleNamespace(
        protection=protection, calls=SimpleNamespace(ask=lambda question: question())
    )
    fd = Bringing(coding, lambda: True)._room("t", COUNT)
    assert os.fstat(fd).st_size == COUNT and memory.held(fd) == COUNT
    os.close(fd)

    protection.fetch("t", messages.Fetch(30.0, COUNT), said.append)
    assert "t" in ahead._rooms  # what came was damaged: it is asked for again
    holding.newest = Record(1, 100, 10, 7, 1000.0)
    protection.look()
    assert [answer.step for answer in said] == [1] and not ahead._rooms

    protection.fetch("t", messages.Fetch(30.0, COUNT), said.append)
    assert not ahead._rooms  # it is here


def test_a_keeper_that_ends_or_has_no_thread_makes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what it would bring back; the descriptor does not stay."""
    coding: Any = SimpleNamespace(
        protection=Protection({}, set, 60.0), calls=SimpleNamespace(ask=lambda question: question())
    )
    before = descriptors()
    assert Bringing(coding, lambda: False)._room("t", COUNT) == -1
    fd = Bringing(coding, lambda: True)._room("t", COUNT)
    assert memory.held(fd) == COUNT
    os.close(fd)

    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(memory.ThreadPoolExecutor, "submit", refused)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    assert Bringing(coding, lambda: True)._room("t", COUNT) == -1
    assert descriptors() == before
