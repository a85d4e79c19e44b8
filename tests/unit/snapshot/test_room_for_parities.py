"""A keeper without memory for the parities of others: nothing is coded, and it says what it would take."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pccl_py.snapshot import agreeing, coding, memory, messages
from pccl_py.snapshot.calls import Calls
from pccl_py.snapshot.coding import Coding
from pccl_py.snapshot.generation import Lane, Share, arranged
from pccl_py.snapshot.protection import Protection

SAID = messages.Protect("nowhere:1", "", False, False, "", "", "", "a", 1, 0)


def test_parities_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = [Share("k0", "a", ()), Share("k1", "b", (Lane("t", 5, 200 << 20, 100, 1),))]
    generation = arranged(1, 1, shares)
    calls, protection = Calls(), Protection({}, set, 60.0)
    keeper = Coding("k0", SAID, protection, calls)
    monkeypatch.setattr(memory, "available", lambda: 100 << 20)
    share = keeper._prepared(generation)
    assert share is not None and not keeper._make_room(share)
    calls.run()
    assert "needs 200 MiB of shared memory, and 100 MiB can be had" in protection.fault
    monkeypatch.setattr(memory, "available", lambda: 200 << 20)
    assert keeper._make_room(share)


def test_where_memory_is_short_it_is_tried_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time all that keepers have alike is hashed before."""
    shares = [Share("k0", "a", ()), Share("k1", "b", (Lane("t", 5, 200 << 20, 100, 1),))]
    calls: Any = Calls()
    calls.ask = lambda question: question()
    keeper, comm = Coding("k0", SAID, Protection({}, set, 60.0), calls), None
    monkeypatch.setattr(agreeing, "exchanged", lambda *told, **more: agreeing.Told([], False, False))
    monkeypatch.setattr(agreeing, "identical_in", lambda *told: ())
    monkeypatch.setattr(coding, "all_say_yes", lambda comm, yes: yes)
    monkeypatch.setattr(Coding, "_code", lambda *told: None)
    monkeypatch.setattr(memory, "available", lambda: 100 << 20)

    def paused() -> float:
        coded: Any = keeper.encode(comm, arranged(1, 1, shares), {"k0": 0, "k1": 1})  # type: ignore[arg-type]
        return 0.0 if coded else keeper.pause_s

    assert [paused() for _ in range(7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    monkeypatch.setattr(memory, "available", lambda: 200 << 20)
    assert paused() == 0 and keeper.pause_s == coding.AGAIN_S


def test_what_came_back_is_in_other_memory_than_the_share() -> None:
    """Of the same step, with the same bytes: what the share looks at was damaged, or it had not come back."""
    lane, other = Lane("t", 5, 100, 50, 7), Lane("u", 5, 100, 50, 7)
    keeper = Coding("k0", SAID, Protection({}, set, 60.0), Calls())
    share: Any = SimpleNamespace(lanes=(lane,))
    keeper.share = share
    keeper.lose(other)
    assert keeper.share is share
    keeper.lose(lane)
    assert keeper.share is None and keeper.intact() == 0
