"""A snapshot whose bytes are damaged, of a trainer that is gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

from pccl_py.snapshot.generation import Lane
from pccl_py.snapshot.protection import Protection


@pytest.mark.parametrize(("newest", "kept"), [(6, True), (5, False)])
def test_what_is_newer_than_the_damaged_one_stays(newest: int, kept: bool) -> None:
    holding: Any = SimpleNamespace(newest=SimpleNamespace(step=newest), close=lambda: None)
    protection = Protection({"t": holding}, set, 60.0)
    protection.spoil(Lane("t", 5, 100, 50, 7))
    assert ("t" in protection.holdings) == kept
