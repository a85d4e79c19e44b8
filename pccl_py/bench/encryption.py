"""`bench encryption`: what TLS costs where the network decides: all_reduce of two peers over emulated lines
of 1 Gbit/s, in a run without a secret and in one with it, by turns, in the same processes.

The lower quartile of their times: what else the machine does only ever adds to them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

from ..communicator import Communicator
from . import wan
from .crew import Crew, Worker, each
from .peers import CONNECT_S
from .report import Figure
from .units import MIB, bytes_text, percentile
from .wan_peer import WanMaster, WanPeer

PEERS = 2
SIZE = 32 * MIB
RATE_MBIT, RTT_MS = 1000.0, 1.0
MTU = 9000  # as between servers; and the emulator, a process beside them all, has fewer packets to move
COST_GOAL = 0.01
WARM = 3  # operations of each kind that are not counted: links open their streams


class SealedPeer(WanPeer):
    """In two runs at the same time, of which the second has a secret."""

    def join_sealed(self, address: str, secret_file: str, min_islands: int) -> None:
        options: dict[str, Any] = {"min_islands": min_islands, "timeout": CONNECT_S, "config": self._config}
        self._sealed = Communicator(address, secret_file=secret_file, **options, **self._path())

    def turn(self, sealed: bool) -> dict[str, Any]:
        plain = self._joined
        self._joined = self._sealed if sealed else plain
        try:
            return self.reduce()
        finally:
            self._joined = plain


def measure(size: int, repeats: int) -> Iterator[Figure]:
    """Raises CannotMeasure or WorkerFailed."""
    with _network() as net, Crew() as crew, tempfile.TemporaryDirectory() as folder:
        workers = _start(crew, net, _secret(Path(folder)))
        each(workers, "prepare", size=size)
        seconds: dict[bool, list[float]] = {False: [], True: []}
        cpu: dict[bool, float] = {False: 0.0, True: 0.0}
        right = True
        for turn in range(WARM + repeats):
            for sealed in (False, True) if turn % 2 else (True, False):
                calls = each(workers, "turn", sealed=sealed)
                right &= all(call["right"] for call in calls)
                if turn >= WARM:
                    began = max(call["began"] for call in calls)
                    seconds[sealed].append(max(call["ended"] for call in calls) - began)
                    cpu[sealed] += sum(call["cpu"] for call in calls) / repeats
    plain, encrypted = (percentile(seconds[sealed], 25) for sealed in (False, True))
    details = {
        "plain_s": plain,
        "encrypted_s": encrypted,
        "plain_spread": percentile(seconds[False], 75) / plain - 1,
        "of_the_line": size * 8 / plain / (RATE_MBIT * 1e6),
        "plain_cpu_s": cpu[False],
        "encrypted_cpu_s": cpu[True],
        "operations": repeats,
    }
    name = f"time that TLS costs at 1 Gbit/s, {bytes_text(size)}, P = {PEERS}"
    yield Figure("encryption", name, encrypted / plain - 1, "", COST_GOAL, details, right)


def _network() -> Any:
    """A namespace for each peer, and the masters'."""
    return wan.emulated(PEERS + 1, rtt_ms=RTT_MS, up_mbit=RATE_MBIT, down_mbit=RATE_MBIT, mtu=MTU)


def _secret(folder: Path) -> str:
    path = folder / "secret"
    path.touch(mode=0o600)
    path.write_text(token_hex())
    return str(path)


def _start(crew: Crew, net: Any, secret: str) -> list[Worker]:
    place = net.namespaces[PEERS], net.addresses[PEERS]
    plain, sealed = (
        crew.start("a master", partial(WanMaster, *place, **settings)).call("describe")["address"]
        for settings in ({}, {"secret_file": secret})
    )
    kind = partial(SealedPeer, transport="tcp")
    workers = [crew.start(f"peer {i}", partial(kind, net.namespaces[i], i, PEERS)) for i in range(PEERS)]
    each(workers, "join", address=plain, min_islands=PEERS)
    each(workers, "join_sealed", address=sealed, secret_file=secret, min_islands=PEERS)
    return workers
