"""The master of a run in a process of its own: it may be killed, and started again at its address."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pccl_py as pccl

from . import clock
from .house import House
from .processes import Child, Fleet, end_with
from .records import Writer

START_S = 20.0


class MasterSeat:
    """`folder`: where it keeps its views; None: in memory alone. `away`: it was killed, and none is there."""

    def __init__(self, fleet: Fleet, house: House, folder: Path | None) -> None:
        self._fleet, self._house, self._folder = fleet, house, folder
        self._number = 0
        self.away = False
        self.child = self._fork(f"{house.listen}:0")
        self.address = self._told_address()

    def kill(self) -> None:
        """It is dead when this returns."""
        self.away = True
        self._fleet.kill(self.child)
        os.waitid(os.P_PID, self.child.pid, os.WEXITED | os.WNOWAIT)

    def start_again(self) -> None:
        self.child = self._fork(self.address)
        self.away = False

    def _fork(self, listen: str) -> Child:
        house, folder = self._house, self._folder

        def main(out: Writer, lifeline: int) -> None:
            house.enter_master()
            clock.take(clock.MASTER)
            _serve(out, lifeline, listen, house.insecure, folder)

        self._number += 1
        return self._fleet.start("master" if self._number == 1 else f"master{self._number}", main)

    def _told_address(self) -> str:
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            for child, record in self._fleet.poll(0.1):
                if record["what"] == "address":
                    return str(record["address"])
                if record["what"] == "exit":
                    raise RuntimeError(f"the master ended at once:\n{child.log_tail()}")
        raise RuntimeError(f"the master said nothing within {START_S:g} s")


def _serve(out: Writer, lifeline: int, listen: str, insecure: bool, folder: Path | None) -> None:
    import logging
    import sys

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(relativeCreated)8d ms  %(message)s")
    with pccl.Master(listen, insecure=insecure, state_dir=folder) as master:
        out.say("address", address=master.address)
        end_with(lifeline)
