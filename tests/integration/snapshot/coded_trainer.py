"""A trainer without torch whose snapshots are coded with those of others: it says which step is, until it is
killed.

usage: coded_trainer RUN MASTER NUMBER PARITY BYTES FROZEN     of which the first FROZEN stay as they are
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from pccl_py.snapshot.buffers import Buffers
from pccl_py.snapshot.messages import Protect
from pccl_py.snapshot.verified import Verified

from .raw_trainer import plan_of, take, values


def protect(master: str, domain: str, parity: int, rate: int = 0) -> Protect:
    return Protect(master, "", False, False, "", "", "", domain, parity, rate)


def coded_buffers(run: str, master: str, number: int, parity: int, keeper: str = "", **more: Any) -> Buffers:
    """One keeper for each trainer, each in a domain of its own."""
    name = keeper or f"k{number}"
    return Buffers(run, f"t{number}", name, 60.0, 60.0, protect(master, name, parity, **more))


def content(number: int, step: int, count: int, frozen: int = 0) -> np.ndarray:
    data = values(1000 * number + step, count)
    data[:frozen] = values(500_000 + number, frozen)
    return data


def take_coded(held: Buffers, number: int, step: int, count: int, frozen: int = 0) -> None:
    time.sleep(0.1)  # of training
    take(held, step, content(number, step, count, frozen))
    fault = held.await_coded(step, 60.0)
    assert not fault, fault


def restored(held: Buffers, count: int) -> tuple[int, np.ndarray]:
    """The newest snapshot that it has, every block checked."""
    with Verified(held.kept[0]) as found:
        start = found.table.record.tensors["w"].pieces[0].offset
        assert len(found.data) == plan_of(count).file_bytes
        return found.step, np.frombuffer(found.data[start : start + count], np.uint8).copy()


def main(run: str, master: str, number: int, parity: int, count: int, frozen: int) -> None:
    held = coded_buffers(run, master, number, parity)
    held.attach()
    step = 0
    while True:
        step += 1
        take_coded(held, number, step, count, frozen)
        told = held.coded
        if told is not None and told.losses == parity and told.unchanged == frozen:  # the others are there
            print(step, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7]))
