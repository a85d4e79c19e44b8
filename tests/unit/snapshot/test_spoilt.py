"""A snapshot whose bytes are damaged, of a trainer that is gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

from pccl_py.snapshot.generation import Lane
from pccl_py.snapshot.protection import Protection


def test_a_damaged_step_that_is_given_up_may_be_taken_again() -> None:
    holding: Any = SimpleNamespace(newest=SimpleNamespace(step=5), close=lambda: None, slot_of=lambda *_: 0)
    protection = Protection({"t": holding}, lambda: {"t"}, 60.0)
    lane = Lane("t", 5, 100, 50, 7)
    protection.spoil(lane)
    assert not protection.intact((lane,))
    protection.forgotten("t", 4, lambda: None)
    assert protection.intact((lane,))


@pytest.mark.parametrize(("newest", "kept"), [(6, True), (5, False)])
def test_what_is_newer_than_the_damaged_one_stays(newest: int, kept: bool) -> None:
    holding: Any = SimpleNamespace(newest=SimpleNamespace(step=newest), close=lambda: None)
    protection = Protection({"t": holding}, set, 60.0)
    protection.spoil(Lane("t", 5, 100, 50, 7))
    assert ("t" in protection.holdings) == kept
