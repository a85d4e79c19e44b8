"""Processes of gang_trainer: started, listened to, and their keepers killed."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

from pccl_py.snapshot import ask
from tests.conftest import Spawn

MODULE = "tests.integration.snapshot.gang_trainer"
FOREVER = "1000000"
PIPE_BYTES = (
    1 << 20
)  # a process says 200 bytes a step, and nobody may listen for a while: it must not stand still


def start(spawn: Spawn, **options: Any) -> subprocess.Popen[str]:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not True]
    flags = [f"--{name}" for name, value in options.items() if value is True]
    process = spawn("-m", MODULE, *words, *flags)
    assert process.stdout is not None
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return process


def lines(process: subprocess.Popen[str], until: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """What it says, up to the first line that is wanted."""
    assert process.stdout is not None
    said: list[dict[str, Any]] = []
    while not said or not until(said[-1]):
        line = process.stdout.readline()
        assert line, f"it ended: {said[-3:]}"
        if line.startswith("{"):
            said.append(json.loads(line))
        else:
            print(line, end="")
    return said


def rest(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    assert process.stdout is not None
    text = process.stdout.read()
    print(text)
    process.wait()
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def step_of(line: dict[str, Any], least: int) -> bool:
    return "losses" in line and line["step"] >= least


def calm(steps: int) -> dict[int, str]:
    """The bits after each step, where nobody is killed: in this process."""
    from . import gang_trainer

    model, inner = gang_trainer.built(1)
    found = {}
    for step in range(1, steps + 1):
        gang_trainer.train_step(model, inner, step)
        found[step] = gang_trainer.bits(model, inner)
    return found


def kill_keeper(name: str, number: int = signal.SIGKILL) -> None:
    found = [ask.summary(path) for path in ask.sockets()]
    os.kill(next(one.pid for one in found if one is not None and one.keeper == name), number)
