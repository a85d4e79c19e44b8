"""Six peers, any two of whose hosts may vanish: what they held in memory alone comes back to the bit.

    python examples/snapshot_recover.py

Each peer trains a model of its own, which nobody else has, and which no disk ever sees. First a trainer is
killed, and its successor takes the state from its keeper, a process beside it. Then two trainers are killed
with their keepers, as if their hosts were gone: the other keepers decode what those held. In the end every
model is that of a training that nobody killed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import pccl_py as pccl
from pccl_py.snapshot import ask

PEERS, PARITY, EVERY, GO_ON = 6, 2, 5, 20
PATIENCE_S = 150


class Training:
    """What it does depends on its number and its steps alone."""

    def __init__(self, number: int) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(number)
        self.at = 0  # in the data
        self.number = number
        self.model = torch.nn.Sequential(
            torch.nn.Linear(64, 512), torch.nn.Dropout(0.1), torch.nn.Linear(512, 64)
        )
        self.inner = torch.optim.AdamW(self.model.parameters())

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, saved: dict[str, int]) -> None:
        self.at = saved["at"]

    def step(self) -> None:
        generator = torch.Generator().manual_seed(1_000_000 * self.number + self.at)
        self.at += 1
        self.model(torch.rand(16, 64, generator=generator)).square().mean().backward()
        self.inner.step()
        self.inner.zero_grad()

    def bits(self) -> str:
        moments = (one["exp_avg_sq"] for one in self.inner.state.values())
        held = [*self.model.state_dict().values(), *moments]
        return f"{zlib.crc32(b''.join(tensor.numpy().tobytes() for tensor in held)):08x}"


def train(number: int, address: str, log: Path, founders: int) -> None:
    """Until the file `end` beside the log says at which step."""
    training, name, end = Training(number), str(number), log.parent / "end"
    state = pccl.TrainState(model=training.model, inner=training.inner, data=training)
    with open(log, "w") as out, pccl.Communicator(address, min_islands=founders) as comm:
        # Its keeper and its failure domain are its own, as on a host of its own.
        keep = pccl.Snapshots(
            comm, parity=PARITY, every=EVERY, run="recover", trainer=name, keeper=name, domain=name
        )
        with pccl.protect(state, comm, snapshots=keep) as run:
            print(json.dumps({"from": run.resumed_from["inner"].step}), file=out, flush=True)
            while not end.exists() or run.step < int(end.read_text()):
                training.step()
                comm.update_topology()  # who is new comes in here
                safe = keep.status()
                told = {"step": run.step, "coded": safe.coded, "losses": safe.losses, "bits": training.bits()}
                print(json.dumps(told), file=out, flush=True)
                time.sleep(0.02)


class Peer:
    """A trainer in a process, and each that follows it."""

    def __init__(self, number: int, address: str, place: Path) -> None:
        self.number, self._address, self._place = number, address, place
        self._starts = 0
        self.start(PEERS)

    def start(self, founders: int = 1) -> None:
        self._starts += 1
        self._log = self._place / f"{self.number}-{self._starts}.log"
        words = ["--number", str(self.number), "--address", self._address, "--log", str(self._log)]
        command = [sys.executable, __file__, *words, "--founders", str(founders)]
        self.process = subprocess.Popen(command)

    def lines(self) -> list[dict[str, Any]]:
        text = self._log.read_text() if self._log.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    @property
    def came_from(self) -> bool:
        return bool(self.lines())

    @property
    def is_safe(self) -> bool:
        """A snapshot that this process took is coded, and two losses are one too few."""
        found = self.lines()
        return len(found) > 1 + EVERY and found[-1]["losses"] == PARITY and found[-1]["coded"] is not None

    def kill(self, *, with_keeper: bool) -> int:
        """The last step of which it told."""
        if with_keeper:
            told = [one for one in map(ask.summary, ask.sockets()) if one is not None]
            os.kill(next(one.pid for one in told if one.keeper == str(self.number)), signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        return int(self.lines()[-1]["step"])


def until(peers: list[Peer], true: Callable[[Peer], bool]) -> None:
    over = time.monotonic() + PATIENCE_S
    while not all(true(peer) for peer in peers):
        if any(peer.process.poll() is not None for peer in peers) or time.monotonic() > over:
            raise SystemExit("WRONG: a peer has ended, or does not go on")
        time.sleep(0.02)


def strike(peers: list[Peer], struck: list[Peer], *, with_keeper: bool) -> None:
    until(peers, lambda peer: peer.is_safe)
    lost = {peer.number: peer.kill(with_keeper=with_keeper) for peer in struck}
    what = "and keeper killed" if with_keeper else "killed"
    for peer in struck:
        print(f"trainer {peer.number} {what} after step {lost[peer.number]}", flush=True)
        peer.start()
    until(struck, lambda peer: peer.came_from)
    source = "decoded by the other keepers" if with_keeper else "from its keeper"
    for peer in struck:
        step = peer.lines()[0]["from"]
        print(f"trainer {peer.number} goes on from step {step}, {source}", flush=True)
        if step is None or not lost[peer.number] - 3 * EVERY <= step <= lost[peer.number] + 1:
            raise SystemExit("WRONG: that is not what was taken last")


def compare(peers: list[Peer], end: int) -> None:
    for peer in peers:
        calm = Training(peer.number)
        wanted = {}
        for step in range(1, end + 1):
            calm.step()
            wanted[step] = calm.bits()
        found = {line["step"]: line["bits"] for line in peer.lines()[1:]}
        wrong = [step for step, bits in found.items() if bits != wanted[step]]
        if wrong or max(found) != end:
            raise SystemExit(f"WRONG: trainer {peer.number} has other bits at steps {wrong}")
    print(f"{end} steps of {PEERS} trainers: all bits as if nobody had been killed")


def main() -> None:
    place = Path(tempfile.mkdtemp(prefix="pr-"))
    os.environ["XDG_RUNTIME_DIR"] = str(place)  # where keepers of this run alone are
    # Twelve processes on few cores are silent at times; who is killed is known by its connections, at once.
    os.environ["PCCL_HEARTBEATS_MISSED_MAX"] = "100"
    with pccl.Master("127.0.0.1:0") as master:
        peers = [Peer(number, master.address, place) for number in range(PEERS)]
        try:
            strike(peers, peers[5:], with_keeper=False)
            strike(peers, peers[3:5], with_keeper=True)
            until(peers, lambda peer: peer.is_safe)
            end = max(peer.lines()[-1]["step"] for peer in peers) + GO_ON
            (place / "new").write_text(str(end))
            (place / "new").rename(place / "end")
            for peer in peers:
                if peer.process.wait(PATIENCE_S) != 0:
                    raise SystemExit(f"trainer {peer.number} ended with status {peer.process.returncode}")
        finally:
            for peer in peers:
                peer.process.kill()
            for socket in ask.sockets():
                if ask.summary(socket) is not None:
                    ask.free(socket, force=True)
    compare(peers, end)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, kind in (("number", int), ("address", str), ("log", Path), ("founders", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.number is None:
        main()
    else:
        train(given.number, given.address, given.log, given.founders)
