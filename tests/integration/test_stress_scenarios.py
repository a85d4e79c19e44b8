"""`python -m stress run`: each scenario for some seconds without a fault; and a fault made on purpose, which
its oracle must see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Spawn

from .test_stress import stress

LACKS = 77
nightly = pytest.mark.nightly

SOUND: list[Any] = [
    "master_kill",
    *(pytest.param(name, marks=nightly) for name in ("stop", "partition", "slow_link", "loss", "disk_full")),
    *(pytest.param(name, marks=nightly) for name in ("clock_jump", "join_storm", "training", "everything")),
]

# Scenario, what is done on purpose, minutes, what must be found.
PLANTED: list[Any] = [
    ("churn", "state", 0.05, "wrong_values"),
    pytest.param("stop", "ghost", 0.1, "broken_promises", marks=nightly),
    pytest.param("partition", "dark", 0.2, "broken_promises", marks=nightly),
    pytest.param("slow_link", "wrong", 0.1, "wrong_values", marks=nightly),
    pytest.param("loss", "death", 0.1, "survivor_deaths", marks=nightly),
    pytest.param("master_kill", "late", 0.1, "broken_promises", marks=nightly),
    pytest.param("disk_full", "silent", 0.2, "broken_promises", marks=nightly),
    pytest.param("disk_full", "lie", 0.4, "wrong_values", marks=nightly),
    pytest.param("clock_jump", "clock", 0.2, "broken_promises", marks=nightly),
    pytest.param("clock_jump", "leak", 0.4, "leaks", marks=nightly),
    pytest.param("join_storm", "door", 0.1, "broken_promises", marks=nightly),
    pytest.param("training", "drift", 0.2, "wrong_values", marks=nightly),
    pytest.param("training", "stale", 0.3, "wrong_values", marks=nightly),
    pytest.param("training", "orphan", 0.2, "leaks", marks=nightly),
    pytest.param("everything", "hang", 0.2, "hangs", marks=nightly),
]


def run(spawn: Spawn, *arguments: str) -> tuple[int, dict[str, Any]]:
    status, report = stress(spawn, "run", *arguments, seconds=240)
    if status == LACKS:
        pytest.skip("this machine lacks what the scenario needs")
    return status, report


@pytest.mark.deadline(250)
@pytest.mark.parametrize("name", SOUND)
def test_a_scenario_without_a_fault(spawn: Spawn, tmp_path: Path, name: str) -> None:
    minutes = "0.08" if name == "master_kill" else "0.3"
    page = tmp_path / "reports" / "page.html"
    status, report = run(spawn, name, "--minutes", minutes, "--seed", "2", "--report", str(page))
    assert (status, report["details"]) == (0, []), "\n".join(report["details"])
    assert report["promises_kept"] > 0 and report["operations"] > 50
    assert page.read_text().count("<svg") == 7


@pytest.mark.deadline(250)
@pytest.mark.parametrize(("name", "sabotage", "minutes", "fault"), PLANTED)
def test_a_planted_fault_is_found(spawn: Spawn, name: str, sabotage: str, minutes: float, fault: str) -> None:
    arguments = ("--minutes", str(minutes), "--seed", "6", "--peers", "3", "--sabotage", sabotage)
    status, report = run(spawn, name, *arguments)
    assert status == 1 and report[fault] > 0, report
