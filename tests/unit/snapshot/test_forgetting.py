"""A trainer that gives steps up hears that it is done once the other keepers know."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pccl_py.snapshot import limits, protection
from pccl_py.snapshot.protection import Protection


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(now=100.0)
    monkeypatch.setattr(protection, "time", SimpleNamespace(monotonic=lambda: found.now, time=lambda: 0.0))
    return found


def keeper(newest: object, coded: int) -> Protection:
    holding: Any = SimpleNamespace(newest=newest)
    member: Any = SimpleNamespace(wake=lambda: None)
    return Protection({"t": holding}, lambda: {"t"}, 60.0, member=member, coded={"t": coded})


def test_nothing_is_left(clock: SimpleNamespace) -> None:
    """A round that had begun before does not count, nor one that failed."""
    one, told = keeper(None, 6), []
    one.forgotten("t", -1, lambda: told.append(1))
    assert one.freed == {"t"}
    one.round_begins(True)
    one.round_begins(False)
    one.look()
    assert not told
    one.round_begins(True)
    assert told == [1]


def test_an_older_one_is_coded_in_its_place(clock: SimpleNamespace) -> None:
    one, told = keeper(SimpleNamespace(step=5), 6), []
    one.forgotten("t", 5, lambda: told.append(1))
    for _ in range(3):
        one.round_begins(True)
    assert not told and not one.freed
    one.complete({"t": 5}, 1, {}, {})
    assert told == [1]


def test_without_the_others_it_goes_on(clock: SimpleNamespace) -> None:
    one, told = keeper(None, 6), []
    one.forgotten("t", -1, lambda: told.append(1))
    one.look()
    assert not told
    clock.now += limits.FORGET_S + 1
    one.look()
    assert told == [1]
    one.member = None
    one.forgotten("t", -1, lambda: told.append(2))
    assert told == [1, 2], "nobody else has any"
