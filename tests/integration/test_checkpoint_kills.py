"""Savers of checkpoints that are killed at random instants, and a whole run that is killed and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def stress(*words: str, path: str | None = None) -> dict[str, Any]:
    """`path`: where it finds programs."""
    done = subprocess.run(
        [sys.executable, "-m", "stress", "checkpoint", *words, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=None if path is None else {**os.environ, "PATH": path},
    )
    found: dict[str, Any] = json.loads(done.stdout)
    faults = found["wrong_values"] + found["survivor_deaths"] + found["hangs"]
    assert (done.returncode == 0) == (faults == 0), done.stderr
    return found


def test_what_was_durable_is_loaded_whenever_a_saver_is_killed() -> None:
    found = stress("--kills", "50", "--seed", "7")
    assert found["kills"] == 50 and found["loads_checked"] >= 45
    assert found["wrong_values"] == found["survivor_deaths"] == found["hangs"] == 0, found["details"]


@pytest.mark.parametrize(
    ("way", "kills"), [("upload", 10), ("dcp", 10), pytest.param("convert", 8, marks=pytest.mark.nightly)]
)
@pytest.mark.deadline(240)
def test_other_ways_to_write_keep_their_word(way: str, kills: int) -> None:
    found = stress("--kills", str(kills), "--seed", "5", "--way", way)
    assert found["kills"] == kills and found["loads_checked"] > 0
    assert found["wrong_values"] == found["survivor_deaths"] == found["hangs"] == 0, found["details"]


@pytest.mark.parametrize(
    ("way", "sabotage", "kills"),
    [
        ("save", "durable", 12),
        ("save", "value", 4),
        ("upload", "uploaded", 6),
        ("upload", "value", 4),
        ("dcp", "value", 4),
        ("convert", "value", 2),
        pytest.param("upload", "durable", 12, marks=pytest.mark.nightly),
        pytest.param("dcp", "durable", 12, marks=pytest.mark.nightly),
        pytest.param("convert", "durable", 8, marks=pytest.mark.nightly),
    ],
)
def test_a_saver_that_lies_or_saves_something_else_is_found(way: str, sabotage: str, kills: int) -> None:
    found = stress("--kills", str(kills), "--seed", "7", "--way", way, "--sabotage", sabotage)
    assert found["wrong_values"] > 0
    assert sabotage != "value" or found["wrong_values"] >= found["loads_checked"] > 0
    says = {"durable": "was durable", "uploaded": "was durable", "value": "holds"}[sabotage]
    assert any(says in fault for fault in found["details"]), found["details"]


def test_a_saver_that_hangs_shows_where() -> None:
    found = stress(
        "--kills", "2", "--seed", "2", "--sabotage", "hang", "--hang-seconds", "1", path=""
    )  # no debugger
    assert found["hangs"] >= 1 and "in save" in str(found["details"])
    assert "it had begun: save of step" in str(found["details"])


def test_the_example_resumes_on_as_many_ranks_and_on_another_number() -> None:
    command = [sys.executable, "examples/checkpoint_resume.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 rank(s) went on" in done.stdout and "all as if nobody had been killed" in done.stdout
