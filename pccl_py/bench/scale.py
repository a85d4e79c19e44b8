"""`bench scale`: what control costs as the run grows, with hundreds of real peers on loopback.

Peers are threads of some worker processes, each with connections of its own; they carry no data worth
speaking of. What counts is the master's CPU: per operation, and per second in which nobody does anything.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..communicator import Communicator
from ..config import Config
from .crew import Crew, WorkerFailed, die_with_parent, each
from .report import Figure

PEERS_PER_WORKER = 25
PEERS_MAX = 1000
IDLE_S = 3.0
JOIN_S = 120.0
OPERATION_GOAL_S = 0.05
# Hundreds of peers share two cores here: silence is no sign of death.
CONFIG = Config(heartbeats_missed_max=60, prove_ms=60_000, reconnect_ms=60_000, redial_ms=60_000)


class IdlePeers:
    """So many peers of one process."""

    def __init__(self) -> None:
        self._comms: list[Communicator] = []
        _many_files()

    def join(self, address: str, count: int, of: int) -> None:
        def connect() -> None:
            comm = Communicator(address, min_islands=of, timeout=JOIN_S, transport="tcp", config=CONFIG)
            self._comms.append(comm)

        _in_threads([connect] * count)

    def reduce(self, times: int) -> int:
        """Wrong results of 64 floats each; all peers of the run call it at once."""
        wrong: list[int] = []

        def peer(comm: Communicator) -> None:
            for _ in range(times):
                values = np.ones(64, np.float32)
                comm.all_reduce(values)
                if not (values == comm.world_size).all():
                    wrong.append(1)

        _in_threads([partial(peer, comm) for comm in self._comms])
        return len(wrong)

    def leave(self) -> None:
        _in_threads([comm.leave for comm in self._comms])


def measure(counts: Sequence[int], operations: int) -> Iterator[Figure]:
    """For each number of peers: the master's CPU time and memory."""
    for count in counts:
        found = _one(count, operations)
        details = {"peers": count, "operations": operations, "wall_s": found["wall"], "join_s": found["join"]}
        name = f"P = {count}: the master's"
        yield Figure(
            "scale", f"{name} CPU per operation", found["operation"], "s", OPERATION_GOAL_S, details,
            found["wrong"] == 0,
        )  # fmt: skip
        yield Figure("scale", f"{name} CPU per idle second", found["idle"], "s", None, {"peers": count})
        yield Figure("scale", f"{name} memory", found["memory"], "B", None, {"peers": count})


def _one(count: int, operations: int) -> dict[str, Any]:
    with ExitStack() as stack:
        master, address = _master(stack)
        crew = stack.enter_context(Crew())
        sizes = _shares(count, max(1, -(-count // PEERS_PER_WORKER)))
        workers = [crew.start(f"worker {number}", IdlePeers) for number in range(len(sizes))]
        began = time.monotonic()
        for worker, size in zip(workers, sizes, strict=True):
            worker.send("join", address=address, count=size, of=count)
        for worker in workers:
            worker.receive(JOIN_S + 10)
        joined = time.monotonic() - began
        wrong = sum(each(workers, "reduce", times=2, within=JOIN_S))  # links are opened, plans made
        idle = [_cpu_s(master.pid, lambda: time.sleep(IDLE_S)) / IDLE_S for _ in range(3)]
        began = time.monotonic()
        results: list[int] = []
        work = _cpu_s(
            master.pid, lambda: results.extend(each(workers, "reduce", times=operations, within=JOIN_S))
        )
        wall = (time.monotonic() - began) / operations
        memory = _memory_bytes(master.pid)
        each(workers, "leave", within=JOIN_S)
        return {
            "operation": work / operations, "idle": statistics.median(idle), "memory": memory,
            "wall": wall, "join": joined, "wrong": wrong + sum(results),
        }  # fmt: skip


def _shares(count: int, parts: int) -> list[int]:
    """As equal as they can be."""
    return [count // parts + (number < count % parts) for number in range(parts)]


def _master(stack: ExitStack) -> tuple[subprocess.Popen[str], str]:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    parent = os.getpid()
    log = stack.enter_context(open(Path(folder) / "log", "w"))
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", _MASTER],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        preexec_fn=lambda: die_with_parent(parent),
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    if not address:
        raise WorkerFailed("the master does not start")
    return process, address


_MASTER = """
import threading
from pccl_py import Master
from pccl_py.bench.scale import CONFIG, _many_files
_many_files()
master = Master(config=CONFIG)
print(master.address, flush=True)
threading.Event().wait()
"""


def _many_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _cpu_s(pid: int, during: Callable[[], None]) -> float:
    """CPU time of a process, all its threads, while that runs."""
    before = _used_s(pid)
    during()
    return _used_s(pid) - before


def _used_s(pid: int) -> float:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) * 1e-9


def _memory_bytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(int(line.split()[1]) << 10)
    return 0.0


def _in_threads(calls: Sequence[Callable[[], None]]) -> None:
    """All at the same time. Raises the first error."""
    errors: list[BaseException] = []

    def guarded(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
