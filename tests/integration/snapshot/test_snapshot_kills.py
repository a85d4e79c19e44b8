"""Trainers and keepers killed in every phase of a snapshot and of bringing one back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]


def stress(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "stress", "snapshots", *words, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    faults = [name for name in ("wrong_values", "survivor_deaths", "hangs", "broken_promises", "leaks")
              if found[name]]  # fmt: skip
    assert (done.returncode == 0) == (not faults), done.stderr
    return found


@pytest.mark.deadline(250)
def test_killed_in_every_phase() -> None:
    """Four trainers with keepers, two of which may be lost at once: every value is checked."""
    found = stress("--phases", "--seed", "1", "--hang-seconds", "30")
    assert found["details"] == []
    assert found["patterns"] == 15 and found["moments_struck"] >= 15 and found["operations"] >= 15


@pytest.mark.deadline(120)
def test_a_wrong_bit_is_found() -> None:
    found = stress("--patterns", "3", "--peers", "3", "--seed", "3", "--sabotage", "value")
    assert found["wrong_values"] and "elements are wrong" in str(found["details"])
