"""`python -m pccl_py doctor`: what it finds, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pccl_py import Master
from pccl_py.cli import main


def found(capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {row["about"]: (row["state"], row["text"]) for row in rows}


def test_a_host_that_is_ready(master: Master, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--master", master.address, "--disk", str(tmp_path)]) == 0
    findings = found(capsys)
    assert "scalar" in findings["core"][1]
    assert findings["master"][0] == "ok" and "MB/s" in findings["disk"][1]
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_is_told(
    free_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PCCL_HEARTBEAT_MS", "soon")
    words = ["--master", f"127.0.0.1:{free_port}", "--disk", str(tmp_path / "absent")]
    assert main(["doctor", "--json", *words]) == 1
    findings = found(capsys)
    assert {about for about, (state, _) in findings.items() if state == "failed"} == {
        "settings", "master", "disk",
    }  # fmt: skip
    assert "whole number" in findings["settings"][1] and "absent" in findings["disk"][1]
