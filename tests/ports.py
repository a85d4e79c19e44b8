"""Ports for tests that have to know one before anybody listens there."""

from __future__ import annotations

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listened on a moment ago, and that nobody is given who
    asks for any port, or dials: other tests run beside this one.
    """
    with open("/proc/sys/net/ipv4/ip_local_port_range") as given:
        first = int(given.read().split()[0])
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(10_000, first) if first > 20_000 else 0))
            return int(probe.getsockname()[1])
