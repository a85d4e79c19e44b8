"""One run's turn at a URL: taken before it writes there, kept while it lives, given back at the end."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path

from ..errors import BusyError
from .lease import Lease, taken
from .patience import Patience
from .remote_store import RemoteStore
from .run_name import run_name
from .upload_faults import UploadFaults

logger = logging.getLogger("pccl_py")


class Turn:
    """`leads`: rank 0 takes it for all, on others nothing here does anything. One thread."""

    def __init__(
        self,
        store: RemoteStore,
        root: Path,
        leads: bool,
        patience: Patience,
        closing: threading.Event,
        faults: UploadFaults,
    ) -> None:
        self._store, self._leads = store, leads
        self._lease = Lease(store, run_name(root) if leads else "")
        self._patience, self._closing, self._faults = patience, closing, faults
        self.beat_s = self._lease.beat_s

    def take(self) -> None:
        """Until the URL is this run's. A run that was killed is no error: its URL is free soon."""
        waited = told = False
        while (holder := self._patience.call("take the URL", self._try)) is not None:
            text = f"{self._store.url} {taken(holder)}"
            self._faults.now(text)
            if self._lease.alive and not told:
                told = True
                self._faults.add(BusyError(text))
            waited = True
            self._closing.wait(self.beat_s)
        if waited:
            self._faults.heard(None, True)

    def _try(self) -> str | None:
        if self._lease.owned:
            with suppress(BusyError):
                self._lease.beat(at_once=True)
                return None
        return self._lease.take()

    def keep(self) -> None:
        """Before the manifest is put. Raises BusyError where another run has it."""
        self._patience.call("keep the URL", lambda: self._lease.beat(at_once=True))

    def beat(self) -> None:
        """A sign of life, when it is time; while something is sent. Raises BusyError."""
        if not self._leads:
            return
        try:
            self._lease.beat()
        except BusyError:
            raise
        except Exception as error:  # the upload itself will say it
            logger.debug("the remote did not take a sign of life: %s", error)

    def beat_idle(self) -> None:
        """The same while nothing is sent."""
        if not self._lease.owned:
            return
        try:
            self.beat()
        except BusyError as error:
            self._faults.add(error)

    def give_back(self) -> None:
        """The next run need not wait then."""
        if self._leads and self._lease.owned:
            with suppress(Exception):
                self._lease.give_back()
