"""Peers in processes of their own that do what a test tells them, one line at a time, and answer in JSON."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

# ADDRESS ISLANDS LABEL DETERMINISTIC: joins; then each line of its standard input is a call and its arguments
# as a JSON list. The sum is of two to the power of the contributors' ids.
PEER = """
import json, os, sys, time
import numpy as np
import pccl_py as pccl
address, islands, label, deterministic = sys.argv[1:]
config = pccl.Config.load(host_label=label, heartbeat_ms=100, heartbeats_missed_max=20)
comm = pccl.Communicator(address, insecure=True, min_islands=int(islands), config=config,
                         deterministic=deterministic == "1")
def reduce(count, algorithm):
    array = np.full(count, float(1 << (comm.id % 20)), np.float32)
    out = np.empty_like(array)
    began = time.monotonic()
    info = comm.all_reduce(array, out=out, algorithm=algorithm)
    ended = time.monotonic()
    right = bool((out == sum(1 << (peer % 20) for peer in info.contributors)).all())
    return dict(right=right, began=began, ended=ended, contributors=info.contributors,
                sent=info.bytes_sent)
def digest(count, seed, algorithm):
    import hashlib
    array = np.random.default_rng(seed + comm.rank).standard_normal(count).astype(np.float32)
    comm.all_reduce(array, algorithm=algorithm)
    return hashlib.sha256(array.tobytes()).hexdigest()
def watch(count, algorithm, seconds):
    import logging
    lines, slow, hindrances = [], {}, set()
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("pccl_py").addHandler(handler)
    array = np.full(count, float(1 << (comm.id % 20)), np.float32)
    work, began = comm.all_reduce(array, algorithm=algorithm, async_op=True), time.monotonic()
    while time.monotonic() - began < seconds and not work.is_completed():
        for operation in comm.diagnose().operations:
            hindrances |= {(one.trouble, one.peer, one.other) for one in operation.hindrances}
            slow |= {link.peer: dict(peer=link.peer) for link in operation.links if link.takes_slowly}
        time.sleep(0.05)
    info = work.wait(60)
    right = bool((array == sum(1 << (peer % 20) for peer in info.contributors)).all())
    return dict(right=right, lines=lines, slow_links=list(slow.values()), hindrances=sorted(hindrances))
def optimize(probe_ms):
    report = comm.optimize_topology(probe_ms)
    return {name: getattr(report, name) for name in report.__slots__} | {"speedup": report.speedup}
def state(): return dict(ring=comm.ring, members=[peer.id for peer in comm.peers()])
def update(): return comm.update_topology()
def leave(): comm.leave()
def say(**what): print(json.dumps(what) + "\\n", end="", flush=True)  # in one write
say(id=comm.id)
for line in sys.stdin:
    name, *arguments = json.loads(line)
    try:
        say(answer=globals()[name](*arguments))
    except pccl.PcclError as error:
        say(error=type(error).__name__, text=str(error))
"""

# ADDRESS: listens there, says where.
MASTER = """
import sys, time
from pccl_py import Config, Master
config = Config.load(heartbeat_ms=100, heartbeats_missed_max=20)
master = Master(sys.argv[1] + ":0", insecure=True, config=config)
print(master.address, flush=True)
time.sleep(600)
"""


def line_of(process: subprocess.Popen[str], within_s: float) -> str:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        assert selector.select(within_s), "no answer in time"
    return process.stdout.readline()


class Commanded:
    """A peer. `prefix`: the command that runs it elsewhere, such as Emulator.command(i)."""

    def __init__(
        self,
        address: str,
        islands: int,
        label: str,
        *,
        deterministic: bool = False,
        prefix: Sequence[str] = (),
    ) -> None:
        words = [*prefix, sys.executable, "-c", PEER, address, str(islands), label, str(int(deterministic))]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, bufsize=1)
        self.id = self.place = 0

    def joined(self, within_s: float = 60) -> None:
        self.id = json.loads(line_of(self.process, within_s))["id"]

    def ask(self, name: str, *arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, *arguments]) + "\n")

    def told(self, within_s: float = 60) -> dict[str, Any]:
        """{"answer": ...}, or {"error": its type, "text": ...}."""
        answer: dict[str, Any] = json.loads(line_of(self.process, within_s))
        return answer

    def kill(self) -> float:
        self.process.kill()
        self.process.wait()
        return time.monotonic()


def on_all(peers: Sequence[Commanded], name: str, *arguments: Any, within_s: float = 60) -> list[Any]:
    """The answers of all peers to the same call."""
    for peer in peers:
        peer.ask(name, *arguments)
    answers = [peer.told(within_s) for peer in peers]
    assert all("error" not in answer for answer in answers), answers
    return [answer["answer"] for answer in answers]


def close(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
