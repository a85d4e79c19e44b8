"""torchft's Manager drives our group by the reconfigure contract, through a death and a replacement."""

from __future__ import annotations

import pytest

from .gang import Gang
from .plays_torchft import KILLED_IN, RATE, STEPS

pytest.importorskip("torchft")


@pytest.mark.deadline(120)
@pytest.mark.parametrize("over", ["http", "group"])
def test_a_replica_is_killed_inside_a_step_and_replaced(gang: Gang, over: str) -> None:
    said = gang.play("plays_torchft:managed", 5, killed=(0,), limit_s=100, over=over)
    committed = [{line["step"]: line for line in lines if line["committed"]} for lines in said[:4]]
    weight = 0.0
    for step in range(STEPS):
        took_part = [rank for rank in range(4) if step in committed[rank]]
        assert took_part[0] == (0 if step < KILLED_IN else 1), took_part
        assert {1, 2} <= set(took_part)
        weight -= RATE * sum(rank + 1.0 for rank in took_part) * (step + 1) / len(took_part)
        for rank in took_part:
            line = committed[rank][step]
            assert line["weight"] == pytest.approx(weight, rel=1e-6), (step, rank)
            assert line["same"] and line["size"] == len(took_part)
    assert any(not line["committed"] for line in said[1])  # the step in which it died
    assert 3 in took_part  # the replacement was healed, and trains
    assert said[3][-1]["placed"] == [over == "group"], "straight into its own tensor, or another"
