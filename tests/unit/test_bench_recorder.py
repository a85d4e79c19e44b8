"""What `bench recorder` makes of times: a cost, and whether the machine could tell it from none."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pccl_py.bench.group import Setting
from pccl_py.bench.recorder import Row
from pccl_py.bench.turns import Timed
from pccl_py.bench.units import percentile

SETTING = Setting(2, "bbr", "cubic", "the host's", None, "shm")
ROUNDS = 50


def row(recorded: Sequence[float], unrecorded: Sequence[float]) -> Row:
    ours, other = (
        Timed(1.0, 1.0, len(rounds), True, p25=percentile(rounds, 25), rounds_p25=rounds)
        for rounds in (recorded, unrecorded)
    )
    return Row(1024, ours, other, SETTING, 0.0)


def test_on_a_quiet_machine_a_cost_of_one_percent_stands_above_its_spread() -> None:
    seen = row([50.5e-6] * ROUNDS, [50e-6] * ROUNDS)
    assert seen.cost == pytest.approx(0.01)
    assert seen.spread == pytest.approx(0.0, abs=1e-9)


def test_rounds_that_are_disturbed_one_by_one_spread() -> None:
    """Every other pair has its disturbance on one side only: -20 % to +25 %."""
    disturbed = [50e-6, 62.5e-6] * (ROUNDS // 2)
    seen = row(disturbed, disturbed[::-1])
    assert seen.cost == pytest.approx(0.0)
    assert seen.spread == pytest.approx(1.57 * 0.45 / ROUNDS**0.5)
    assert seen.record()["cost_spread"] == seen.spread


def test_a_load_that_both_sides_of_a_round_feel_does_not_count() -> None:
    load = [50e-6 * (1 + turn) for turn in range(ROUNDS)]
    assert row(load, load).spread == pytest.approx(0.0, abs=1e-9)
