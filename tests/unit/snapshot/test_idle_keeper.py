"""What a keeper with nothing to do costs: a training beside it has the cores."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

from pccl_py.snapshot import messages, protection, standing
from pccl_py.snapshot.control import Record
from pccl_py.snapshot.member import AT_ONCE, IDLE_S, RunMember
from pccl_py.snapshot.protection import Protection


class Waking:
    """In place of the member."""

    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1

    def stop(self) -> None: ...

    def unmap(self, file: object) -> None: ...


def keeper_with(record: Record) -> Protection:
    holding: Any = SimpleNamespace(newest=record, memory_bytes=100)
    return Protection({"t": holding}, lambda: {"t"}, 60.0)


def test_words_of_a_snapshot_that_is_old_stay_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    one, clock = keeper_with(Record(1, 100, 10, 7, 1000.0)), SimpleNamespace(time=1000.0)
    monkeypatch.setattr(protection, "time", SimpleNamespace(time=lambda: clock.time))
    ages = []
    for clock.time in (1000.0, 1000.1, 1001.2, 1001.4, 1060.0, 1060.1):
        ages.append(one.held()[0].age_ms)
    assert ages == [0, 0, 1000, 1000, standing.AGE_MS_MAX, standing.AGE_MS_MAX]


def test_words_like_those_before_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    member: Any = RunMember.__new__(RunMember)
    member._heard, member._spoken = {}, (None, b"")
    says = [standing.Standing(f"k{i}", "d", 1, (), (), (), (), 0, 0, False) for i in range(2)]
    words = [member._words_of(one) for one in says]
    assert words == [one.encode() for one in says]
    assert member._hear(words) == says
    read: list[bytes] = []
    decode = standing.decode
    monkeypatch.setattr(standing, "decode", lambda data: (read.append(data), decode(data))[1])
    third = standing.Standing("k2", "d", 1, (), (), (), (), 0, 0, True)
    assert member._hear([*words, third.encode()]) == [*says, third]
    assert read == [third.encode()]


def test_a_trainer_that_asks_how_safe_it_is_wakes_nobody() -> None:
    one, waking, said = keeper_with(Record(3, 100, 10, 7, 1000.0)), Waking(), []
    one.member = waking
    one.complete({"t": 3}, 1, {}, {})
    one.await_coded("t", messages.AwaitCoded(3, 5.0), said.append)
    assert [type(answer) for answer in said] == [messages.Coded] and not waking.woken
    one.await_coded("t", messages.AwaitCoded(4, 5.0), said.append)
    assert len(said) == 1 and waking.woken == 1


def test_what_a_trainer_has_given_up_does_not_count_as_coded() -> None:
    """Its next step is not safe before it is coded itself."""
    one, waking, said = keeper_with(Record(3, 100, 10, 7, 1000.0)), Waking(), []
    one.member = waking
    one.complete({"t": 10}, 2, {"t": 7}, {})
    one.forgotten("t", 5, lambda: None)
    one.await_coded("t", messages.AwaitCoded(6, 5.0), said.append)
    assert not said and waking.woken == 2
    one.complete({"t": 6}, 1, {"t": 3}, {"t": 2})
    assert [(answer.step, answer.losses) for answer in said] == [(6, 1)]


def test_a_step_that_is_taken_again_is_told_to_the_others() -> None:
    one = keeper_with(Record(6, 100, 10, 7, 1000.0))
    one.await_coded("t", messages.AwaitCoded(6, 0.0), lambda answer: None)  # by a trainer that did not wait
    assert [held.step for held in one.held()] == []
    one.forgotten("t", 5, lambda: None)
    assert [held.step for held in one.held()] == [6]


def test_who_comes_does_not_wait_for_others_that_have_nothing_to_do() -> None:
    member: Any = RunMember.__new__(RunMember)
    member._coding = SimpleNamespace(expect=lambda said, capacities: False)
    assert member._pause(None, False, [], []) == IDLE_S
    assert member._pause(None, True, [], []) == AT_ONCE
