"""A run that ends in the middle of a test leaves no process behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A program with a fork that leaves its session and outlives it, one that a thread started which is over, and
# a fork of the run.
HANGS = """
import os, pathlib, subprocess, sys, threading, time
import pytest

PLACE = os.path.dirname(__file__)
PROGRAM = '''
import os, sys, time
if sys.argv[2] == "forks" and os.fork():
    sys.exit()
os.setsid()
open(f"{sys.argv[1]}/{os.getpid()}.pid", "w").close()
time.sleep(600)
'''

@pytest.mark.deadline(2)
def test_hangs():
    for word in ("forks", "stays"):
        command = [sys.executable, "-c", PROGRAM, PLACE, word]
        thread = threading.Thread(target=subprocess.Popen, args=[command])
        thread.start()
        thread.join()
    if os.fork() == 0:
        open(f"{PLACE}/{os.getpid()}.pid", "w").close()
        time.sleep(600)
    while len(list(pathlib.Path(PLACE).glob("*.pid"))) < 3:
        time.sleep(0.01)
    pathlib.Path(PLACE, "all").touch()
    time.sleep(600)
"""


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("end", ["deadline", "killed"])
def test_nothing_is_left_of_a_run_that_ends_in_a_test(tmp_path: Path, end: str) -> None:
    hangs = tmp_path / "test_hangs.py"
    hangs.write_text(HANGS)
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-c", "pyproject.toml"]
    command = [sys.executable, "-m", "pytest", *options, str(hangs)]
    with open(tmp_path / "log", "w") as log:
        run = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        until = time.monotonic() + 30
        while not (tmp_path / "all").exists() and run.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        if end == "killed":
            run.kill()
        run.wait(30)
    said = (tmp_path / "log").read_text()
    assert run.returncode == (1 if end == "deadline" else -9), said
    assert end == "killed" or "Timeout" in said
    pids = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert len(pids) == 3 and os.getpid() not in pids, said
    while any(map(lives, pids)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(map(lives, pids))
