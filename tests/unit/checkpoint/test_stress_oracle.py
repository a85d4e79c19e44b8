"""The oracle of `python -m stress checkpoint --way convert` sees each thing that a conversion may spoil."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.distributed.checkpoint as theirs

from pccl_py.cli import main
from stress.checkpoint_savers import ELEMENTS, TENSORS
from stress.conversion_oracle import exports, faults_in, newest, value
from stress.progress import WORK_S, signs_of, threads_of, works

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def state(step: int, wrong: float = 0.0) -> dict[str, torch.Tensor]:
    made = {f"t{index}": torch.full((ELEMENTS,), value(step, index)) for index in range(TENSORS)}
    made["t2"][ELEMENTS - 1] += wrong
    return made


def command(*words: object) -> None:
    assert main(["ckpt", *map(str, words)]) == 0


def converted(root: Path, step: int, wrong: float = 0.0) -> None:
    safetensors.torch.save_file(state(step, wrong), root / "source.safetensors")
    command("import", root / "source.safetensors", root / "in", "--step", step)
    command("reshard", root / "in", root / "out", "--step", step, "--shards", 3)
    for to in ("safetensors", "torch", "dcp"):
        command("export", root / "out", root / f"{step}.{to}", "--to", to, "--part", "model")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound")
    converted(root, 4)
    assert faults_in(root) == [] and newest(root) == 4 and len(exports(root)) == 3
    return root


def wrong_step(name: str) -> Callable[[Path], None]:
    """The same step, sound by its checksums, with one wrong element."""

    def plant(root: Path) -> None:
        other = root.parent / "other"
        other.mkdir()
        converted(other, 4, wrong=1.0)
        shutil.rmtree(root / name)
        os.rename(other / name, root / name)

    return plant


def flipped_byte(root: Path) -> None:
    shard = next((root / "out").glob("step-*/shard-00001*"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)


def lost_shard(root: Path) -> None:
    next((root / "out").glob("step-*/shard-00001*")).unlink()


def wrong_safetensors(root: Path) -> None:
    safetensors.torch.save_file(state(4, 1.0), root / "4.safetensors")


def wrong_torch(root: Path) -> None:
    torch.save(state(4, 1.0), root / "4.torch")


def wrong_dcp(root: Path) -> None:
    shutil.rmtree(root / "4.dcp")
    made: dict[str, Any] = dict(state(4, 1.0))
    theirs.save(made, checkpoint_id=root / "4.dcp", no_dist=True)


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        (wrong_step("in"), "in/step-000000000004 holds something else"),
        (wrong_step("out"), "out/step-000000000004 holds something else"),
        (flipped_byte, "out/step-000000000004 is not whole"),
        (lost_shard, "out/step-000000000004 is not whole"),
        (wrong_safetensors, "4.safetensors holds something else"),
        (wrong_torch, "4.torch holds something else"),
        (wrong_dcp, "4.dcp holds something else"),
    ],
    ids=["import", "reshard", "flipped byte", "lost shard", "safetensors", "torch", "dcp"],
)
def test_a_planted_fault_is_seen_where_it_is_and_nowhere_else(
    sound: Path, tmp_path: Path, plant: Callable[[Path], None], says: str
) -> None:
    root = tmp_path / "root"
    shutil.copytree(sound, root)
    plant(root)
    found = faults_in(root)
    assert len(found) == 1 and says in found[0], found


def test_who_works_and_who_sleeps_can_be_told() -> None:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write_end)
        os.read(read_end, 1)  # sleeps until it is told
        while True:
            os.getppid()
    try:
        os.close(read_end)
        time.sleep(0.05)
        asleep = signs_of(child)
        time.sleep(0.1)
        assert not works(asleep, signs_of(child)) and " S " in threads_of(child)
        os.write(write_end, b"!")
        until = time.monotonic() + 20
        while not works(asleep, signs_of(child)):
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        os.close(write_end)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert threads_of(child) == "no such process"


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not count waits")
def test_who_has_no_core_is_not_taken_for_one_who_hangs() -> None:
    """On a busy machine a saver of low priority had 50 ms in a minute, and was called hung."""
    core = min(os.sched_getaffinity(0))
    children = []
    for greedy in (True, False):
        child = os.fork()
        if child == 0:
            os.sched_setaffinity(0, {core})
            if not greedy:
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            while True:
                pass
        children.append(child)
    try:
        time.sleep(0.2)
        before = signs_of(children[1])
        until = time.monotonic() + 20
        while (now := signs_of(children[1])).starved_s - before.starved_s < WORK_S:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert now.cpu_s - before.cpu_s < WORK_S  # by that alone it would be asleep
        assert now.calls == before.calls and works(before, now)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


CONVERSION = """
import os, sys
from pathlib import Path
from stress.checkpoint_savers import Task, prepare
from stress.checkpoint_conversions import Conversions
from stress.conversion_oracle import faults_in
prepare("convert")
before = set(sys.modules)
root = Path(sys.argv[1])
Conversions(Task(root, os.pipe()[1], 1, None, False))._convert(1)
assert not faults_in(root)
print(*(set(sys.modules) - before), file=sys.stderr)
"""


def test_a_saver_that_converts_finds_torch_imported(tmp_path: Path) -> None:
    """Before the forks, not in each: on a busy machine that took longer than a silence may be."""
    command = [sys.executable, "-W", "ignore", "-c", CONVERSION, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = done.stderr.split()
    assert len(found) < 60, found  # some small ones that torch asks for at its first use; it were 709
    assert not {name.partition(".")[0] for name in found} & {"sympy", "pccl_py", "safetensors"}
