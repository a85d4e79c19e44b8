"""kill -9 at random instants of uploads, with local folders that are lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.s3_server import BUCKET, S3Server

ROOT = Path(__file__).resolve().parents[2]


def run(tmp_path: Path, kills: int, seed: int, limit_s: float) -> None:
    with S3Server() as server:
        endpoint = server.straight["endpoint_url"]
        command = [sys.executable, "-m", "tests.integration.remote_kills", endpoint, f"s3://{BUCKET}/run"]
        result = subprocess.run(
            [*command, str(tmp_path), str(kills), str(seed)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            timeout=limit_s,
        )
    found = json.loads(result.stdout)
    assert found["faults"] == [], found
    assert found["done"]["loaded"] == kills + 1 and found["done"]["uploaded"] > 0, found
    print(found["done"])


@pytest.mark.deadline(240)
def test_a_dozen_kills(tmp_path: Path) -> None:
    run(tmp_path, 12, 1, 200)


@pytest.mark.nightly
@pytest.mark.deadline(3600)
def test_hundreds_of_kills(tmp_path: Path) -> None:
    run(tmp_path, 400, 2, 3500)
