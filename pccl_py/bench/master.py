"""`bench master`: kill -9 of the master while its peers reduce, and how long they stand still.

The peers reduce in place without a pause and check each result. With no store and with a file's the master
is started again at once, and the time until it listens is not counted: whoever watches over it decides that.
With etcd a second master stands by.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import ConnectError
from ..master.etcd_gateway import Gateway
from .crew import Crew, WorkerFailed, die_with_parent, each
from .looping import LoopingPeer
from .report import Figure
from .units import KIB
from .wan import CannotMeasure

PEERS = 8
STORES = ("none", "file", "etcd")
SIZE = 64 * KIB
LEASE_S = 2
STALL_GOAL_S, LEASE_GOAL_S = 0.5, 1.0
BEFORE_S, AFTER_S = 0.5, 2.0  # the kill: it reduces all the time
ALIVE_S = 60.0


def measure(store: str, kills: int, peers: int = PEERS) -> Iterator[Figure]:
    """Medians and the longest over so many kills, each of a master of its own run."""
    trials = [_kill(store, peers) for _ in range(kills)]
    stalls = [trial["stall"] for trial in trials]
    goal = LEASE_S + LEASE_GOAL_S if store == "etcd" else STALL_GOAL_S
    more = "" if store == "etcd" else " beyond its restart"
    name = f"kill -9 of the master, P = {peers}, store {store}"
    details: dict[str, Any] = {"peers": peers, "kills": kills, "store": store, "max_s": max(stalls)}
    details["restart_s"] = statistics.median(trial["restart"] for trial in trials)
    details["operations"] = sum(trial["operations"] for trial in trials)
    if store == "etcd":
        details["lease_s"] = LEASE_S
    yield Figure("master", f"{name}: standstill{more}", statistics.median(stalls), "s", goal, details)
    lost = sum(trial["lost"] for trial in trials)
    yield Figure("master", f"{name}: operations lost or wrong", lost, "", 0, {}, lost == 0)


def _kill(store: str, count: int) -> dict[str, Any]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = [_free_port() for _ in range(2 if store == "etcd" else 1)]
        options = {"none": [], "file": ["--state-dir", str(folder / "views")]}.get(store)
        if options is None:
            endpoint = stack.enter_context(_etcd(folder))
            options = ["--etcd", endpoint, "--lease-s", str(LEASE_S)]
        start = partial(_start_master, stack, options)
        serving = start(ports[0])
        standby = start(ports[1], wait=False) if store == "etcd" else None
        crew = stack.enter_context(Crew())
        address = ",".join(f"127.0.0.1:{port}" for port in ports)
        peers = [
            crew.start(f"peer {slot}", partial(LoopingPeer, os.getpid(), slot, SIZE)) for slot in range(count)
        ]
        each(peers, "join", address=address, min_islands=count)
        for peer in peers:
            peer.send("run_through", seconds=BEFORE_S + AFTER_S + (LEASE_S if standby else 0), slots=count)
        time.sleep(BEFORE_S)
        killed = time.monotonic()
        serving.kill()
        serving.wait()
        if standby is None:
            start(ports[0])
        restart = time.monotonic() - killed if standby is None else 0.0
        return _sum_up(peers, restart)


def _sum_up(peers: list[Any], restart: float) -> dict[str, Any]:
    """Of peers that were told run_through(): the longest standstill of any, less the master's restart."""
    found, lost = [], 0
    for peer in peers:
        try:
            found.append(peer.receive(ALIVE_S))
        except WorkerFailed as error:
            print(error, file=sys.stderr)
            lost += 1
    lost += sum(result["wrong"] for result in found)
    lost += max((result["operations"] for result in found), default=0) * len(found)
    lost -= sum(result["operations"] for result in found)  # all have done the same ones
    return {
        "stall": max(0.0, max((result["longest"] for result in found), default=ALIVE_S) - restart),
        "restart": restart,
        "lost": lost,
        "operations": max((result["operations"] for result in found), default=0),
    }


def _start_master(
    stack: ExitStack, options: list[str], port: int, wait: bool = True
) -> subprocess.Popen[bytes]:
    """Returns when it listens."""
    command = [sys.executable, "-m", "pccl_py", "master", "--listen", f"127.0.0.1:{port}", *options]
    process = _start(stack, command)
    until = time.monotonic() + ALIVE_S
    while wait:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            break
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise WorkerFailed(f"the master at port {port} does not listen") from None
            time.sleep(0.002)
    return process


def _start(stack: ExitStack, command: list[str]) -> subprocess.Popen[bytes]:
    parent = os.getpid()
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: die_with_parent(parent),
    )
    stack.callback(process.wait)
    stack.callback(process.send_signal, signal.SIGKILL)
    return process


@contextmanager
def _etcd(folder: Path) -> Iterator[str]:
    """An etcd of one member; the URL that it serves."""
    path = shutil.which("etcd")
    if path is None:
        raise CannotMeasure("there is no etcd on this machine: apt-get install etcd-server")
    url, peers = (f"http://127.0.0.1:{_free_port()}" for _ in range(2))
    command = [path, "--data-dir", str(folder / "etcd"), "--name", "one"]
    command += ["--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peers]
    command += ["--initial-advertise-peer-urls", peers, "--initial-cluster", f"one={peers}"]
    with ExitStack() as stack:
        _start(stack, command)
        try:
            Gateway(url).call("kv/range", {"key": "AA=="}, time.monotonic() + 20)
        except ConnectError as error:
            raise CannotMeasure(f"etcd does not start: {error}") from None
        yield url


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
