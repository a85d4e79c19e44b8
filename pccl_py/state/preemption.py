"""SIGTERM, as preempted machines get it, becomes a word that the training hears at the end of its next step.

The handler only notes it. Whoever steps acts, then lets the handler before have its turn; where no step ends
in time, that one has it at once.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
from typing import Any

logger = logging.getLogger("pccl_py")
LEFT_S = 20.0
JOIN_S = 5.0  # it has nothing left to do
STATUS = 128 + signal.SIGTERM  # of a process that ends by it, politely


class Preemption:
    """Between `begin` and `end` on the main thread, which alone gets signals; on others it hears nothing.

    within_s    so long after the signal the handler before is at work, whatever the training does
    """

    def __init__(self, within_s: float | None) -> None:
        self._within_s = within_s
        self._asked_at: float | None = None
        self._former: Any = None
        self._process = os.getpid()
        self._begun = self._passed_on = False
        self._over = threading.Event()
        self._reads = self._writes = -1
        self._thread: threading.Thread | None = None

    @property
    def asked(self) -> bool:
        return self._asked_at is not None

    @property
    def waits(self) -> bool:
        """Asked, and the handler before has not had its turn."""
        return self.asked and not self._passed_on

    @property
    def left_s(self) -> float:
        """Until the handler before is at work."""
        if self._asked_at is None or self._within_s is None:  # another rank was asked
            return self._within_s or LEFT_S
        return max(self._asked_at + self._within_s - time.monotonic(), 0.0)

    def begin(self) -> None:
        former = signal.getsignal(signal.SIGTERM)
        main = threading.current_thread() is threading.main_thread()
        if self._within_s is None or not main:
            return
        if former is None:  # a handler of C, which nobody could give its turn
            return
        self._former = former
        self._reads, self._writes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._watch, name="pccl-preemption", daemon=True)
        self._thread.start()
        self._begun = True
        signal.signal(signal.SIGTERM, self._heard)

    def _heard(self, number: int, frame: Any) -> None:
        """Takes no lock: whatever the training does may hold it."""
        child = os.getpid() != self._process
        if child or self.asked or not self._begun:  # or somebody without patience
            if child or not self._passed_on or callable(self._former):  # else it is about to end politely
                self._at_once(frame)
            return
        self._asked_at = time.monotonic()
        os.write(self._writes, b"x")

    def _at_once(self, frame: Any) -> None:
        self._passed_on = True
        if callable(self._former):
            self._former(signal.SIGTERM, frame)
            return
        signal.signal(signal.SIGTERM, self._former)
        os.kill(os.getpid(), signal.SIGTERM)

    def _watch(self) -> None:
        select.select([self._reads], [], [])
        if self._over.wait(self._within_s) or self._passed_on:
            return
        logger.warning("SIGTERM came %g s ago, and no step has ended since", self._within_s)
        if self._former == signal.SIG_DFL:
            os._exit(STATUS)  # the main thread may be anywhere, also where it hears no signal
        os.kill(os.getpid(), signal.SIGTERM)

    def pass_on(self) -> None:
        """The handler before has its turn; where that is the system's, SystemExit."""
        if not self.asked or self._passed_on:
            return
        self._over.set()
        self._passed_on = True
        if callable(self._former):
            self._former(signal.SIGTERM, None)
        elif self._former == signal.SIG_DFL:
            raise SystemExit(STATUS)

    def end(self) -> None:
        """The handler before is in place again, unless somebody has put another one there."""
        if not self._begun:
            return
        self._begun = False
        self._over.set()
        os.write(self._writes, b"x")
        # Methods of one object are equal, not identical.
        if signal.getsignal(signal.SIGTERM) == self._heard:
            signal.signal(signal.SIGTERM, self._former)
        if self._thread is not None:
            self._thread.join(JOIN_S)
            if not self._thread.is_alive():
                os.close(self._reads)
                os.close(self._writes)
