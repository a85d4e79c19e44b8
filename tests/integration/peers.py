"""Peers for tests: threads of this process, each with its communicator, or processes that may be killed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pccl_py import Communicator, Config, OpInfo
from tests.threads import in_threads

# Quick to notice what is dead; slow enough for a busy machine.
QUICK = Config(heartbeat_ms=100, heartbeats_missed_max=10)
# Takes no busy machine's pauses for a death.
PATIENT = Config(heartbeat_ms=300, heartbeats_missed_max=40)
# For tests in which nobody is silent.
STEADY = Config(heartbeat_ms=100, heartbeats_missed_max=100)
# Gives up soon where no master answers.
IMPATIENT = Config(heartbeat_ms=100, heartbeats_missed_max=10, master_lost_ms=300)


def together(
    address: str, count: int, play: Callable[[Communicator, int], Any], *, limit_s: float = 50, **options: Any
) -> list[Any]:
    """`play(comm, i)` on `count` peers at once, each on its thread; what they returned, or raises the first.

    All are members when the first one plays; `i` is the place in the result, not the rank.
    """

    def member(index: int) -> Any:
        with Communicator(address, min_islands=count, config=STEADY, **options) as comm:
            return play(comm, index)

    return in_threads([partial(member, index) for index in range(count)], limit_s)


def assert_sent(info: OpInfo, wanted: float) -> None:
    """Bytes, to a hundredth. An operation that began anew, as where the machine stood still for so long that
    connections were given up, has sent some of it before.
    """
    assert wanted * 0.99 <= info.bytes_sent <= wanted * 1.01 * info.attempts, info


# What a peer in a process starts with: `python -c PEER + "..."  ADDRESS`; it says what it does, line by line.
PEER = """
import sys, time, os, signal, threading
import numpy as np
import pccl_py
from pccl_py import *
def say(*words):  # in one write: lines of the log come between two
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()
address = sys.argv[1]
config = Config(heartbeat_ms=100, heartbeats_missed_max=10)
"""


def expect(process: Any, word: str) -> str:
    """Reads lines until one begins with `word`, and returns the rest of it."""
    seen: list[str] = []
    for line in process.stdout:
        if line.startswith(word):
            return str(line[len(word) :].strip())
        seen.append(line)
    raise AssertionError(f"{word!r} never came; status {process.wait()}; it said:\n{''.join(seen)}")
