"""What trainers say of their states, held against each other."""

from __future__ import annotations

from stress.training_ledger import TrainingLedger


def test_all_have_the_same_after_a_window() -> None:
    ledger = TrainingLedger()
    assert ledger.window(0, 5, "a") == ledger.window(1, 5, "a") == ledger.window(1, 6, "b") == []
    (fault,) = ledger.window(2, 6, "c")
    assert "window 6" in fault and "trainer 2" in fault and "trainer 1" in fault


def test_what_comes_back_is_what_was_there() -> None:
    ledger = TrainingLedger()
    assert ledger.resumed(0, "program", None, "0") == []
    ledger.step(0, 10, "a")
    ledger.step(0, 11, "b")
    ledger.step(1, 11, "c")
    ledger.durable(0, 10)
    assert ledger.resumed(0, "snapshot", 11, "b") == []
    assert "did not have then" in ledger.resumed(0, "snapshot", 11, "a")[0]
    assert "did not have then" in ledger.resumed(0, "snapshot", 11, "c")[0]  # another trainer's
    assert "did not have then" in ledger.resumed(0, "snapshot", 12, "b")[0]
    ledger.step(0, 11, "d")  # again, by a successor that went on from step 10
    assert ledger.resumed(0, "snapshot", 11, "b") == ledger.resumed(0, "checkpoint", 11, "d") == []


def test_what_was_durable_is_not_lost() -> None:
    ledger = TrainingLedger()
    ledger.step(2, 10, "a")
    ledger.durable(2, 20)
    ledger.durable(2, 10)
    assert "step 20 was durable" in ledger.resumed(2, "snapshot", 10, "a")[0]
    assert "begins anew" in ledger.resumed(2, "program", None, "0")[0]
