"""What a process that says nothing does: whether it works, and where each of its threads waits."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
WORK_S = 0.05  # of CPU time within one patience: less is what sleeping threads use


class Signs(NamedTuple):
    """Grow while it works: CPU seconds, seconds in which a thread could have worked without a core, and calls
    that read or write. `at_the_disk`: a thread waits in the kernel where no signal reaches it, which is for a
    device."""

    cpu_s: float
    starved_s: float
    calls: int
    at_the_disk: bool


def signs_of(pid: int) -> Signs:
    """Of a process that is there; nothing of one that is gone."""
    cpu, starved, calls, at_the_disk = 0.0, 0.0, 0, False
    for task in _tasks(pid):
        with suppress(OSError, IndexError, ValueError):
            words = (task / "stat").read_text().rpartition(")")[2].split()
            cpu += (int(words[11]) + int(words[12])) * TICK_S
            at_the_disk = at_the_disk or words[0] == "D"
            starved += int((task / "schedstat").read_text().split()[1]) * 1e-9
    with suppress(OSError, ValueError):
        lines = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
        calls = int(lines["syscr"]) + int(lines["syscw"])
    return Signs(cpu, starved, calls, at_the_disk)


def works(before: Signs, now: Signs) -> bool:
    """Whether it did something in between, or could do nothing because others had the cores or a device has
    not answered."""
    ran_s = now.cpu_s + now.starved_s - before.cpu_s - before.starved_s
    return ran_s >= WORK_S or now.calls != before.calls or now.at_the_disk


def threads_of(pid: int) -> str:
    """A line for each: its name, its state, and the place in the kernel where it waits."""
    lines = []
    for task in _tasks(pid):
        with suppress(OSError, IndexError):
            name = (task / "comm").read_text().strip()
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            where = (task / "wchan").read_text().strip("0") or "-"
            lines.append(f"{name} {state} {where}")
    return "\n".join(lines) or "no such process"


def _tasks(pid: int) -> list[Path]:
    with suppress(OSError):
        return sorted(Path(f"/proc/{pid}/task").iterdir())
    return []
