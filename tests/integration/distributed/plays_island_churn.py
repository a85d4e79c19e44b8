"""Islands whose ranks are killed and stopped at random times: what test_island_churn.py runs.

A rank of the play supervises one island: it forks the island's ranks, troubles them, and forks them anew when
they have ended. Each of them says after each step which run it is in, and what it holds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import pccl_py
from pccl_py import Config
from pccl_py.parallel import Island

from .plays_islands import SIZE, loss_of, net, sharded

LOST, STOPPED_S = 3, 2.6
CONFIG = Config(heartbeat_ms=200, heartbeats_missed_max=10)


def say(**what: Any) -> None:
    """One write: three processes share the output."""
    os.write(1, (json.dumps(what) + "\n").encode())


def churn(*, rank: int, ranks: int, path: str, address: str, seconds: float, seed: int) -> None:
    rng = random.Random(f"{seed} {rank}")
    until, stop = time.monotonic() + seconds, Path(path + "-stop")
    incarnation = 0
    while not stop.exists():
        incarnation += 1
        store = f"{path}-{rank}-{incarnation}"
        pids = [_fork(store, address, "abcdef"[rank], place, stop, rank) for place in range(SIZE)]
        troubled = _trouble(pids, rng, until)
        if time.monotonic() > until:
            stop.touch()
        statuses = [_ended(pid, time.monotonic() + 45) for pid in pids]
        say(island=rank, incarnation=incarnation, statuses=statuses, trouble=troubled)


def _trouble(pids: list[int], rng: random.Random, until: float) -> str:
    """Kills or stops ranks until one has ended."""
    while time.monotonic() < until:
        wake = time.monotonic() + rng.uniform(0.5, 5)
        while time.monotonic() < wake:
            if any(_gone(pid) for pid in pids):
                return "none"
            time.sleep(0.02)
        what = rng.choice(["kill", "kill", "stop one", "stop all"])
        chosen = pids if what == "stop all" else [rng.choice(pids)]
        if what == "kill":
            os.kill(chosen[0], signal.SIGKILL)
            return what
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in chosen:
                if not _gone(pid):
                    os.kill(pid, number)
            time.sleep(STOPPED_S if number == signal.SIGSTOP else 0)
        say(stopped=len(chosen))
    return "end"


def _gone(pid: int) -> bool:
    """It stays a zombie: its status is asked for later."""
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return found is not None


def _ended(pid: int, until: float) -> int:
    while not _gone(pid) and time.monotonic() < until:
        time.sleep(0.02)
    if not _gone(pid):
        os.kill(pid, signal.SIGABRT)  # it shows where it hangs
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _fork(store: str, address: str, name: str, place: int, stop: Path, number: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        status = _rank(store, address, name, place, stop, number)
    except BaseException:
        say(failed=traceback.format_exc(), name=name, place=place)
    finally:
        os._exit(status)


def _rank(store: str, address: str, name: str, place: int, stop: Path, number: int) -> int:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=place, world_size=SIZE)
    run = torch.tensor([random.Random(store).getrandbits(40)])  # the founder's, whom others join
    model = sharded(net(number), "fsdp2")
    inner = torch.optim.AdamW(model.parameters(), lr=1e-3)
    options: dict[str, Any] = {"config": CONFIG, "inner_timeout": 10, "join_timeout": 20}
    try:
        with Island(address, model, inner, name=name, extra={"run": run}, **options) as island:
            _rename_at_rejoin(island, run, store)
            stopping = torch.zeros(1)
            while not stopping.item():
                with island.step():
                    step = island.steps
                    loss_of(model, step, number * SIZE + place).backward()
                    info = island.all_reduce_gradients()
                    stopping.fill_(float(stop.exists()))
                    island.all_reduce(stopping, "max")
                    inner.step()
                    inner.zero_grad()
                    say(
                        run=int(run), step=step, place=place, of=len(info.contributors),
                        digest=island.digest(), name=name, pid=os.getpid(),
                    )  # fmt: skip
                time.sleep(0.02)
    except pccl_py.IslandLost:
        return LOST
    except (pccl_py.OperationTimeout, pccl_py.ConnectError) as error:
        say(door=str(error))
        return LOST
    return 0


def _rename_at_rejoin(island: Island, run: torch.Tensor, store: str) -> None:
    """Where all others are gone when an island comes back, it goes on from what it has: another run."""
    real, count = island.rejoin, 0

    def rejoin(timeout: float | None = None) -> None:
        nonlocal count
        real(timeout)
        count += 1
        run.fill_(random.Random(f"{store} {count}").getrandbits(40))

    island.rejoin = rejoin  # type: ignore[method-assign]
