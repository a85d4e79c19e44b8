"""Peers for tests: threads of this process, each with its communicator, or processes that may be killed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pccl_py import Communicator, Config

# Quick to notice what is dead; slow enough for a busy machine.
QUICK = Config(heartbeat_ms=100, heartbeats_missed_max=10)
# Gives up soon where no master answers.
IMPATIENT = Config(heartbeat_ms=100, heartbeats_missed_max=10, master_lost_ms=300)


def at_once(calls: Sequence[Callable[[], Any]], limit_s: float = 50) -> list[Any]:
    """Every call on a thread of its own; what they returned, or raises the first error."""
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            results[index] = calls[index]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(limit_s)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), "a peer hangs"
    return results


def together(
    address: str, count: int, play: Callable[[Communicator, int], Any], *, limit_s: float = 50, **options: Any
) -> list[Any]:
    """`play(comm, i)` on `count` peers at once, each on its thread; what they returned, or raises the first.

    All are members when the first one plays; `i` is the place in the result, not the rank.
    """

    def member(index: int) -> Any:
        with Communicator(address, min_islands=count, config=QUICK, **options) as comm:
            return play(comm, index)

    return at_once([partial(member, index) for index in range(count)], limit_s)


# What a peer in a process starts with: `python -c PEER + "..."  ADDRESS`; it says what it does, line by line.
PEER = """
import sys, time, os, signal, threading
import numpy as np
import pccl_py
from pccl_py import *
def say(*words): print(*words, flush=True)
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
