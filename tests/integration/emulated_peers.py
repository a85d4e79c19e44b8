"""Peers that do what they are told, each in its place of an emulated network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from stress.net import Emulator

from .commanded import MASTER, Commanded, close, line_of


@contextmanager
def group(net: Emulator, count: int) -> Iterator[list[Commanded]]:
    """Members in order of admission, each in the namespace `place`; the master in the last one."""
    words = net.command(count, sys.executable, "-c", MASTER, net.addresses[count])
    processes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True)]
    try:
        address = line_of(processes[0], 60).strip()
        peers = []
        for i in range(count):
            peers.append(Commanded(address, count, f"host {i}", prefix=net.command(i)))
            peers[i].place = i
            processes.append(peers[i].process)
        for peer in peers:
            peer.joined()
        peers.sort(key=lambda peer: peer.id)
        assert [peer.id for peer in peers] == list(range(1, count + 1))
        yield peers
    finally:
        close(processes)
