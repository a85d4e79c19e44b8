"""Real processes under `python -m stress`: short runs without a fault, and faults made on purpose that it
must see.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Spawn


def stress(spawn: Spawn, *arguments: str, seconds: float = 100) -> tuple[int, dict[str, Any]]:
    """Exit status and report."""
    process = spawn("-m", "stress", *arguments, "--json")
    output, _ = process.communicate(timeout=seconds)
    if process.returncode == 77:
        return 77, {}
    try:
        return process.returncode, json.loads(output)
    except ValueError:
        pytest.fail(output, pytrace=False)


def check(status: int, report: dict[str, Any]) -> None:
    """No fault, and something has happened."""
    assert (status, report["details"]) == (0, []), "\n".join(report["details"])
    assert report["wrong_values"] == report["survivor_deaths"] == report["hangs"] == 0
    assert report["operations"] > 100
    assert report["evictions_unexpected"] == 0


@pytest.mark.deadline(120)
def test_churn(spawn: Spawn) -> None:
    status, report = stress(spawn, "churn", "--seconds", "9", "--peers", "4", "--kills", "25", "--seed", "1")
    check(status, report)
    assert 20 <= report["kills"] <= 25  # as many as a busy machine lets join in the time
    assert report["recovery_ms"]["count"] > 10


@pytest.mark.nightly
@pytest.mark.deadline(120)
def test_churn_of_islands(spawn: Spawn) -> None:
    status, report = stress(
        spawn, "churn", "--seconds", "8", "--islands", "3x2", "--kills", "12", "--seed", "2"
    )
    check(status, report)
    assert report["kills"] > 5
    assert report["evictions"] > 0  # the mates of who was killed


@pytest.mark.deadline(120)
@pytest.mark.parametrize("workers", ["0", "2"])
def test_recovery(spawn: Spawn, workers: str) -> None:
    arguments = ("--kills", "5", "--peers", "3", "--bytes", "1M", "--forked-workers", workers)
    status, report = stress(spawn, "recovery", *arguments, "--seed", "3")
    check(status, report)
    assert report["kills"] == 5
    assert report["recovery_ms"]["count"] == 10
    assert report["recovery_ms"]["median"] < 1000  # the figures themselves are for a quiet machine


@pytest.mark.deadline(120)
def test_pause(spawn: Spawn) -> None:
    status, report = stress(spawn, "pause", "--rounds", "1", "--bytes", "64K", "--seed", "4")
    check(status, report)
    assert set(report["told_by"]) <= {"Evicted", "OutcomeUnknown"}
    assert report["evictions"] == 1
    assert 1000 < report["evicted_after_ms"]["median"] < 5000


@pytest.mark.deadline(120)
@pytest.mark.parametrize(
    ("sabotage", "fault"), [("wrong", "wrong_values"), ("death", "survivor_deaths"), ("hang", "hangs")]
)
def test_faults_are_seen(spawn: Spawn, sabotage: str, fault: str) -> None:
    arguments = ("--peers", "3", "--kills", "0", "--hang-seconds", "5", "--sabotage", sabotage)
    status, report = stress(spawn, "churn", "--seconds", "3", *arguments, "--seed", "5")
    assert status == 1
    assert report[fault] > 0
    for other in {"wrong_values", "survivor_deaths", "hangs"} - {fault}:
        assert report[other] == 0
    assert report["details"]
