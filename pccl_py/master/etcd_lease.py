"""A lease of etcd, kept alive by a thread; whoever serves by it is told until when, and when it is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..errors import PcclError
from . import etcd_answers
from .etcd_gateway import EtcdRefused, Gateway

RENEWALS = 4  # in each lease's time
SAFE_PART = 0.95  # of it: clocks of two hosts do not run alike


class Lease:
    """Counted from before it was asked for, so that it ends here before it ends at etcd."""

    def __init__(self, gateway: Gateway, seconds: float, until: float) -> None:
        asked = time.monotonic()
        answer = gateway.call("lease/grant", {"TTL": str(max(1, round(seconds)))}, until)
        self.number, self.seconds = etcd_answers.granted(answer)
        self.end = asked + SAFE_PART * self.seconds
        self._gateway = gateway.again()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def keep(self, moved: Callable[[float], None], lost: Callable[[str], None]) -> None:
        """Renews it on a thread. moved: its new end; lost: why there is none, and the thread has ended."""
        self._thread = threading.Thread(
            target=self._renew, args=(moved, lost), name="pccl-etcd-lease", daemon=True
        )
        self._thread.start()

    def _renew(self, moved: Callable[[float], None], lost: Callable[[str], None]) -> None:
        while not self._stopped.wait(self.seconds / RENEWALS):
            asked = time.monotonic()
            try:
                answer = self._gateway.call("lease/keepalive", {"ID": str(self.number)}, self.end)
                seconds = etcd_answers.kept_alive(answer)
            except EtcdRefused as error:
                return lost(f"its lease could not be renewed: {error}")
            except PcclError as error:
                if time.monotonic() < self.end:
                    continue
                return lost(f"its lease of {self.seconds} s could not be renewed in time: {error}")
            if seconds == 0 or asked >= self.end:
                return lost(
                    "its lease at etcd is over: this process, or its way to etcd, stood still for too long"
                )
            self.end = asked + SAFE_PART * min(seconds, self.seconds)
            moved(self.end)

    def give_back(self) -> None:
        """So that nobody has to wait for its end."""
        self._stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=2.0)
        try:
            self._gateway.again().call("lease/revoke", {"ID": str(self.number)}, time.monotonic() + 1.0)
        except PcclError:  # it ends by itself
            pass
