"""Builds the C++ tests without a sanitizer and runs them; .ci/nightly does the same with each sanitizer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def output_of(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        pytest.fail(f"status {done.returncode} from {' '.join(command)}\n{done.stdout}", pytrace=False)
    return done.stdout


@pytest.mark.deadline(1200)  # a first build takes minutes
def test_cpp() -> None:
    output_of(sys.executable, "setup.py", "-q", "build_tests")
    report = output_of("build/tests-none/pccl_tests")
    assert "\n0 passed" not in report
    assert report.rstrip().endswith(" passed, 0 failed")
