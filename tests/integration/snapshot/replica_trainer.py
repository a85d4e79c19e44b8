"""A trainer without torch, whose state is that of all others but for the bytes [FIRST, LAST), its own.
It takes one snapshot, says what it is told of it, and waits to be killed.

usage: replica_trainer MASTER NUMBER PARITY BYTES FIRST LAST FLIPPED     a byte with one other bit; -1: none
"""

from __future__ import annotations

import signal
import sys

import numpy as np

from .coded_trainer import coded_buffers
from .raw_trainer import take, values


def content(number: int, count: int, first: int, last: int, flipped: int = -1) -> np.ndarray:
    data = values(1, count)
    data[first:last] = values(1000 + number, last - first)
    if flipped >= 0:
        data[flipped] ^= 4
    return data


def main(master: str, number: int, parity: int, *state: int) -> None:
    held = coded_buffers("run", master, number, parity)
    held.attach()
    take(held, 1, content(number, *state))
    print("taken", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:8]))
