"""kill -9 at random instants of save, commit, retire, recycle and sweep: what was complete stays so."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pccl_py.checkpoint import folder
from pccl_py.checkpoint.plain_reader import read_tensor
from pccl_py.checkpoint.verify import verify_step
from tests.unit.checkpoint.saver import WORLD, values

ROOT = Path(__file__).resolve().parents[3]


def killed_after(root: Path, seconds: float) -> int:
    """The newest step that the saver called durable, 0 for none; it is killed so long after its first."""
    command = [sys.executable, "-m", "tests.unit.checkpoint.saver", str(root)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        first = process.stdout.readline()
        time.sleep(seconds)
        assert process.poll() is None, "it was to run until it is killed"
        process.kill()
        process.wait()
        lines = [first, *process.stdout.read().split()]
    return max((int(line) for line in lines if line.strip()), default=0)


def check(root: Path, durable: int) -> int:
    found = folder.scan(root)
    assert found.latest is not None and found.latest.step >= durable
    for step in found.steps:
        assert step.complete, f"step {step.step} is not whole: {step.missing} {step.faults}"
        assert verify_step(step.path).sound
        assert step.manifest is not None
        for rank in range(WORLD):
            assert read_tensor(step.path, step.manifest, f"w{rank}") == values(step.step, rank).tobytes()
    kept = {step.step for step in found.steps}
    assert kept >= set(range(10, durable - 1, 10)), "keep_every"
    return found.latest.step


def kill_again_and_again(root: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    latest = 0
    for _ in range(kills):
        durable = killed_after(root, rng.uniform(0, 0.1))
        assert durable > latest, "it goes on after what it found"
        latest = check(root, durable)
    assert latest > kills
    folder.sweep(root)
    assert not folder.scan(root).leftovers


@pytest.mark.deadline(240)
def test_a_few_dozen_kills_never_lose_or_spoil_a_step(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, kills=36, seed=11)


@pytest.mark.deadline(240)
def test_a_kill_at_every_call_never_loses_or_spoils_a_step(spawn: Callable[..., Any], tmp_path: Path) -> None:
    process = spawn("-m", "tests.unit.checkpoint.killed_at_each_call", str(tmp_path))
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert int(output) > 30


@pytest.mark.nightly
@pytest.mark.deadline(1800)
def test_a_thousand_kills_never_lose_or_spoil_a_step(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, kills=1000, seed=int(time.time()))
