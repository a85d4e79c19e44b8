"""Processes that are killed while they write: the name that counts never shows anything half."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pccl_py import _core

from .disk_files import crcs_of, read

ROOT = Path(__file__).resolve().parents[2]
SIZE = 3 * (1 << 20) + 1234

# Writes generation after generation as a saver does: into the file that the last but one left, under a
# temporary name, which takes the final one when everything is on the device.
SAVER = f"""
import os, sys
import numpy as np
from pccl_py import _core
folder, script, generations = sys.argv[1], sys.argv[2], int(sys.argv[3])
disk = _core.InjectedDisk(script)
retired, part, final = (os.path.join(folder, name) for name in ("retired", "shard.part", "shard"))
room = np.empty({SIZE} + 8192, np.uint8)
data = room[-room.ctypes.data % 4096:][:{SIZE}]
for generation in range(1, generations + 1):
    data[:] = generation % 251
    writer = _core.ShardWriter(disk, part, {SIZE}, recycle=retired, threads=2)
    for at in range(0, {SIZE}, 1 << 18):
        writer.write(at, data.ctypes.data + at, min(1 << 18, {SIZE} - at))
    writer.finish()
    if os.path.exists(final):
        os.rename(final, retired)
    os.rename(part, final)
    print(generation, flush=True)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    path = ROOT / "build" / f"test-disk-kill-{os.getpid()}"
    path.mkdir(parents=True)
    yield path
    shutil.rmtree(path)


def start(folder: Path, script: str, generations: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SAVER, str(folder), script, str(generations)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def generation_of(path: Path) -> int:
    """The generation whose bytes, all of them, the file holds."""
    first = path.read_bytes()[:1]
    to = np.zeros(SIZE, np.uint8)
    read(_core.Disk(), path, SIZE, crcs_of(first * SIZE), [(0, to.ctypes.data, SIZE, 1, 0, 0)])
    assert (to == first[0]).all()
    return first[0]


def check(folder: Path, done: int) -> None:
    """The last generation that was announced is there, or the one after it, whole."""
    names = [name for name in ("shard", "retired") if (folder / name).exists()]
    newest = max((generation_of(folder / name) for name in names), default=0)
    assert newest in (done % 251, (done + 1) % 251)


CALLS = [
    "open 3",
    "facts 7",
    "allocate 2",
    "pwrite 30",
    "pwrite 35",
    "truncate 3",
    "fdatasync 3",
    "close 3",
    "rename 3",
]


@pytest.mark.deadline(150)  # of processes that start
@pytest.mark.parametrize("call", CALLS)
def test_killed_at_a_call(folder: Path, call: str) -> None:
    saver = start(folder, f"{call} kill", 3)
    out, _ = saver.communicate(timeout=60)
    assert saver.returncode == -signal.SIGKILL
    done = len(out.split())
    assert done in (1, 2)
    check(folder, done)
    # The next start takes over what was left: temporary files are overwritten, not extended.
    saver = start(folder, "", 4)
    assert saver.communicate(timeout=60)[0].split() == ["1", "2", "3", "4"]
    assert generation_of(folder / "shard") == 4
    assert generation_of(folder / "retired") == 3


@pytest.mark.deadline(150)
def test_killed_at_any_moment(folder: Path) -> None:
    moments = random.Random(7)
    for _ in range(10):
        saver = start(folder, "pwrite * delay 1", 250)
        assert saver.stdout is not None
        assert saver.stdout.readline() == "1\n"
        time.sleep(moments.uniform(0.0, 0.15))
        saver.kill()
        done = [1, *map(int, saver.stdout.read().split())][-1]
        saver.stdout.close()
        saver.wait(timeout=20)
        check(folder, done)
        assert set(os.listdir(folder)) <= {"shard", "shard.part", "retired"}
