"""What every peer process does: join, come back after an eviction, leave when it is told to.

SIGTERM asks it to leave at the end of what it is doing; SIGUSR2 makes it log what it knows of the run.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

import pccl_py as pccl

from .records import Writer

# A refusal at the door is legitimate: the island's old ranks may not be out yet.
_AGAIN_S = 0.05


class Leaving(Exception):
    """It was told to leave while it waited to be let in."""


def _die(problem: threading.ExceptHookArgs) -> None:
    """An exception that leaves any thread ends the process, so that it is seen."""
    traceback.print_exception(problem.exc_value)
    os._exit(1)


@dataclass(frozen=True)
class Seat:
    """Where a peer belongs: the arguments of its Communicator."""

    address: str
    island: str | None = None
    island_size: int = 1
    group: int = 0
    min_islands: int = 1
    transport: str | None = None
    insecure: bool = False


class Peer:
    """Runs in a process of its own. Subclasses say what happens in a round."""

    comm: pccl.Communicator

    def __init__(self, seat: Seat, out: Writer) -> None:
        self.seat = seat
        self.out = out
        self.leaving = False
        self._at_door = False
        self._fresh = True
        logging.basicConfig(
            stream=sys.stderr,
            level=logging.INFO,
            format="%(relativeCreated)8d ms  %(levelname).1s  %(message)s",
        )
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGUSR2, self._on_describe)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        threading.excepthook = _die

    def run(self) -> None:
        """Until it has been told to leave."""
        try:
            self._come_in(self._connect)
            while not self.leaving:
                try:
                    self.round()
                except (pccl.Evicted, pccl.OutcomeUnknown) as error:
                    self.out.say("gone", error=f"{type(error).__name__}: {error}"[:600])
                    self.evicted()
                    self._come_in(lambda: self.comm.rejoin())
            self.comm.leave()
        except Leaving:
            pass
        except pccl.ClosedError:
            if not self.leaving:
                raise
        self.out.say("left")

    def round(self) -> None:
        raise NotImplementedError

    def evicted(self) -> None:
        """Before it comes back."""

    def boundary(self) -> None:
        """update_topology(), and a record of when this peer had reached it. Who has just come in stands
        there.
        """
        if self._fresh:
            self._fresh = False
            return
        entered = time.monotonic()
        changed = self.comm.update_topology()
        self.out.say("boundary", entered=entered, changed=changed)

    def _connect(self) -> None:
        seat = self.seat
        self.comm = pccl.Communicator(
            seat.address,
            island=seat.island,
            island_size=seat.island_size,
            group=seat.group,
            min_islands=seat.min_islands,
            transport=seat.transport,
            insecure=seat.insecure,
        )

    def _come_in(self, enter: Callable[[], None]) -> None:
        began = time.monotonic()
        self.out.say("joining")
        while True:
            try:
                self._enter(enter)
                break
            except (pccl.RefusedError, pccl.ConnectError) as error:  # or its way to the master is cut
                self.out.say("refused", why=str(error)[:600])
                time.sleep(_AGAIN_S)
        self._fresh = True
        now = time.monotonic()
        self.out.say("member", t=now, peer=self.comm.id, connect_s=now - began)

    def _enter(self, enter: Callable[[], None]) -> None:
        """SIGTERM ends the wait at the door, and only that."""
        self._at_door = True
        try:
            if self.leaving:
                raise Leaving
            enter()
        finally:
            self._at_door = False

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        self.leaving = True
        if self._at_door:
            raise Leaving

    def _on_describe(self, number: int, frame: FrameType | None) -> None:
        with suppress(Exception):
            print(f"pid {os.getpid()}: {self.comm!r}, {self.comm.waiting} at the door", file=sys.stderr)
            for peer in self.comm.peers():
                print(f"  {peer}", file=sys.stderr)
