"""The examples run with one command and show what they promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def run(name: str, *options: str) -> str:
    command = [sys.executable, f"examples/{name}.py", *options]
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=170,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.nightly
@pytest.mark.deadline(180)
def test_torchrun_dropin() -> None:
    text = run("torchrun_dropin")
    assert "functions: the mean of 1 to 2 is 1.5, here were rank 0 in process" in text
    assert float(text.split("the last loss is ")[1]) < 1e-3


@pytest.mark.nightly
@pytest.mark.deadline(180)
def test_fsdp_islands() -> None:
    text = run("fsdp_islands")
    assert "rank 1 of this island is gone: peer " in text
    assert "b again rank 1 step" in text
    assert "all islands had the same losses and the same bits after each common step" in text


@pytest.mark.nightly
@pytest.mark.deadline(180)
def test_snapshot_recover() -> None:
    text = run("snapshot_recover")
    assert re.search(r"trainer 5 killed after .*\ntrainer 5 goes on from step \d+, from its keeper", text)
    assert re.findall(r"trainer (\d) and keeper killed after step \d+", text) == ["3", "4"]
    assert re.findall(r"trainer (\d) goes on from step \d+, decoded by the other keepers", text) == ["3", "4"]
    assert "steps of 6 trainers: all bits as if nobody had been killed" in text


@pytest.mark.deadline(180)
def test_ddp_elastic() -> None:
    text = run("ddp_elastic")
    assert text.count("step 15 again: rank 0 (peer ") == 2
    ends = re.findall(r"(b|c|newcomer): done, rank (\d) of 3, sha256 (\w{16})", text)
    assert sorted(rank for _, rank, _ in ends) == ["0", "1", "2"]
    assert len({digest for _, _, digest in ends}) == 1


@pytest.mark.deadline(180)
@pytest.mark.parametrize("options", [[], pytest.param(["--ddp"], marks=pytest.mark.nightly)])
def test_elastic_training(options: list[str]) -> None:
    text = run("elastic_training", *options)
    ends = re.findall(r"(a|c|newcomer): steps (\d+) to 80, loss (\S+), sha256 (\w{16})", text)
    assert sorted(name for name, *_ in ends) == ["a", "c", "newcomer"]
    assert len({digest for *_, digest in ends}) == 1
    assert len({loss for *_, loss, _ in ends}) == 1
    began = {name: int(step) for name, step, *_ in ends}
    assert began["a"] == began["c"] == 0 and 40 <= began["newcomer"] < 80
