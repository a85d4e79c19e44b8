"""Ranks for tests: forked from one process that has imported torch already, which saves seconds per rank.

`python -m tests.integration.distributed.gang` is that process. Each line of its input is a play: JSON with
`play` ("module:function" of this folder), `ranks`, `folder`, `limit_s` and the play's arguments. Each rank
calls `function(rank=..., ranks=..., path=..., **arguments)` and writes what `say()` is given, as JSON lines.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


class Gang:
    """The process, and what its ranks said. One play at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.integration.distributed.gang"]
        pipe = subprocess.PIPE
        # Silence is what a busy machine brings; plays that are about it say what they allow.
        knobs = {"PCCL_HEARTBEAT_MS": "200", "PCCL_HEARTBEATS_MISSED_MAX": "20"}
        environment = os.environ | knobs | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env=environment, start_new_session=True
        )

    def play(
        self, play: str, ranks: int, *, killed: tuple[int, ...] = (), limit_s: float = 50, **arguments: Any
    ) -> list[list[dict[str, Any]]]:
        """By rank, what it said. Fails where a rank fails that is not in `killed`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            order = {"play": play, "ranks": ranks, "folder": folder, "limit_s": limit_s, "args": arguments}
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            statuses = json.loads(self._process.stdout.readline())
            texts = [(Path(folder) / f"rank{rank}").read_text() for rank in range(ranks)]
        for rank, status in enumerate(statuses):
            expected = -signal.SIGKILL if rank in killed else 0
            short = [
                f"rank {r}: {line[:300]}" for r, text in enumerate(texts) for line in text.splitlines()[-30:]
            ]
            assert status == expected, f"rank {rank} ended with {status}:\n" + "\n".join(short)
        # A line of the library's log, which has a thread of its own, may meet the end of one.
        decode = json.JSONDecoder().raw_decode
        return [[decode(line)[0] for line in text.splitlines() if line.startswith("{")] for text in texts]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def say(**what: Any) -> None:
    """From a play: one line of what the test gets to see."""
    print(json.dumps(what) + "\n", end="", flush=True)  # in one write: lines of the log come between two


def _serve() -> None:
    import torch._dynamo  # noqa: F401  # once, for all ranks; DDP and FSDP ask for it

    import pccl_py.distributed.backend  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        importlib.import_module(_module(order))  # here, not in each rank
        pids = [_fork(order, rank) for rank in range(order["ranks"])]
        print(json.dumps(_statuses(pids, time.monotonic() + order["limit_s"])), flush=True)


def _module(order: dict[str, Any]) -> str:
    return "tests.integration.distributed." + str(order["play"]).split(":")[0]


def _fork(order: dict[str, Any], rank: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    out = os.open(f"{order['folder']}/rank{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    status = 1
    try:
        function = getattr(importlib.import_module(_module(order)), order["play"].split(":")[1])
        import faulthandler

        import torch

        faulthandler.enable()  # a rank that is late shows where it was
        torch.set_num_threads(1)
        function(rank=rank, ranks=order["ranks"], path=order["folder"] + "/store", **order["args"])
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _statuses(pids: list[int], until: float) -> list[int]:
    """As subprocess gives them: negative for a signal. Whoever is late is killed by another signal than the
    plays use."""
    statuses: dict[int, int] = {}
    while len(statuses) < len(pids):
        for pid in set(pids) - statuses.keys():
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                statuses[pid] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > until:
                os.kill(pid, signal.SIGABRT)
        time.sleep(0.01)
    return [statuses[pid] for pid in pids]


if __name__ == "__main__":
    _serve()
