"""The orchestrator of the churn, without peers."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest

from stress.churn import CLOSE_AFTER_S, LATER_S, Churn, ChurnPlan
from stress.scene import Hang
from stress.troubles.storms import MEMBERS_S
from stress.windows import Limits


@pytest.fixture
def churn() -> Churn:
    scene: Any = MagicMock()
    scene.actors = []
    return Churn(ChurnPlan(5, 1000.0, 4, 3000, Limits()), scene)


def test_a_run_that_is_far_behind_looks_for_a_victim_once(
    churn: Churn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All kills of 1000 s are due and nobody may be killed: it looked for each of them again and again, until
    it had read nothing of what peers say for minutes."""
    looks = 0

    def nobody(fault: Any, now: float) -> bool:
        nonlocal looks
        looks += 1
        return False

    monkeypatch.setattr(churn, "_try", nobody)
    due = len(churn._faults)
    churn._act(0.0, 2000.0)
    assert looks == due + 1 and len(churn._postponed) == 3000
    churn._act(0.0, 2000.0 + LATER_S / 2)
    assert looks == due + 1
    churn._act(0.0, 2000.0 + 2 * LATER_S)
    assert looks == due + 2 and churn._goes_on(True)


def test_what_was_postponed_is_made_up(churn: Churn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(churn, "_try", lambda fault, now: False)
    churn._act(0.0, 2000.0)
    done: list[Any] = []
    monkeypatch.setattr(churn, "_try", lambda fault, now: len(done) < 3 and not done.append(fault))
    churn._act(0.0, 2001.0)
    assert len(done) == 3 and len(churn._postponed) == 2997


@pytest.mark.parametrize(("since_s", "wrong"), [(0.1, 0), (CLOSE_AFTER_S + 1, 1)])
def test_what_was_said_last_before_a_hang_is_held_against_nobody(
    churn: Churn, monkeypatch: pytest.MonkeyPatch, since_s: float, wrong: int
) -> None:
    """The news of peer 2 had not been read: its commit looked as if it had none."""
    actor, found = MagicMock(peer=1, disturbed=False), list[str]()
    scene: Any = churn.scene
    scene.starvation.since.return_value = 0.0
    scene.member_since, scene.island_of = {}, {}
    scene.actor_of = {1: actor, 2: MagicMock(peer=2, disturbed=False)}
    scene.report.wrong = found.append

    def hangs() -> None:
        record = {"what": "commit", "t": 100.0 - since_s, "key": [1, 0, "group", 0], "digest": 7}
        churn._on_record(actor, record | {"contributors": [1, 2]})
        raise Hang(100.0)

    monkeypatch.setattr(churn, "run", hangs)
    churn.to_its_end()
    assert len(found) == wrong, found


def test_who_never_gets_in_breaks_the_promise_before_he_counts_as_hung() -> None:
    assert ChurnPlan(5, 1.0, 4, 0, Limits()).hang_s > MEMBERS_S
