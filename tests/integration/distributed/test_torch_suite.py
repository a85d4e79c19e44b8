"""torch's own tests of torch.distributed, on the backend: they end as torch_suite.json says.

One in eight; all of them with PCCL_TORCH_SUITE=all, which takes minutes. In torch_suite.json: "ok",
"skip" with torch's reason, or "fail" with ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("expecttest")  # torch's test utilities want it
ROOT = Path(__file__).resolve().parents[3]
EXPECTED = json.loads((Path(__file__).parent / "torch_suite.json").read_text())


@pytest.mark.deadline(1500)
@pytest.mark.parametrize("like", ["gloo", "gloo 8", "mpi"])
def test_they_end_as_kept(like: str, tmp_path: Path) -> None:
    expected = EXPECTED[like]
    names = sorted(name for name, kept in expected.items() if kept["result"] != "skip")
    chosen = names if os.environ.get("PCCL_TORCH_SUITE") == "all" else names[::8]
    out = tmp_path / "results"
    command = [sys.executable, "-m", "tests.integration.distributed.torch_suite", like, str(out), *chosen]
    calm = os.environ | {"PCCL_HEARTBEATS_MISSED_MAX": "20"}  # of a busy machine's silence
    done = subprocess.run(
        command, cwd=ROOT, env=calm, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:]
    results = {line["test"]: line for line in map(json.loads, out.read_text().splitlines())}
    assert sorted(results) == chosen
    for name, line in results.items():
        found = done.stdout[-6000:] if line["result"] == "fail" else ""  # what its ranks said is in it
        assert line["result"] == expected[name]["result"], f"{name}: {line['text']}\n{found}"
