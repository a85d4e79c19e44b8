"""A master inside this process, on a thread of its own."""

from __future__ import annotations

import os
import time
import weakref
from types import TracebackType
from typing import Any, Protocol, Self

from .. import _core
from ..config import Config
from ..errors import ClosedError, UsageError
from ..logs import tie
from ..secret import encrypts, secret_of
from .etcd_store import EtcdStore

tie(_core)


class Store(Protocol):
    """Where a master keeps what must outlive it. Called on its thread; what it raises is logged, no more."""

    def load(self) -> list[bytes]:
        """All records, as they were kept."""

    def keep(self, run_name: str, record: bytes) -> str | None:
        """In place of the earlier record by that name, the run's; its keepers have a record by a name of
        their own. A text: why another master serves now, so that this one must not; the view in the
        record is then told to nobody."""

    def forget(self, run_name: str) -> None: ...


class Master:
    """`with Master() as master:` admits peers at `master.address` until the block ends. Prints nothing.

    listen        host:port; port 0: any that is free. More than loopback needs one of the next two
    secret_file   at least 16 bytes that all peers share; None: `secret_file` of the configuration
    encrypt       False: the secret proves who is there and encrypts nothing; as Communicator takes it
    insecure      True: other hosts without a secret
    state_dir     a folder of this master alone, where the newest view of each run is kept: a master that is
                  started there after this one was killed goes on with its runs. Without it the peers' own
                  memory must do: more than half of the last view have to come back (NoQuorumError otherwise)
    store         an EtcdStore instead of state_dir: waits here until this is the one master of its prefix.
                  Or an object of yours that can load(), keep() and forget(), see Store

    Raises UsageError or ConnectError when it cannot listen there. What it does is logged under "pccl_py".
    """

    def __init__(
        self,
        listen: str = "127.0.0.1:0",
        *,
        secret_file: str | os.PathLike[str] | None = None,
        encrypt: bool | None = None,
        insecure: bool = False,
        state_dir: str | os.PathLike[str] | None = None,
        store: Store | None = None,
        config: Config | None = None,
    ) -> None:
        if not isinstance(listen, str) or not listen:
            raise UsageError(f"listen={listen!r}: it is 'host:port'")
        if state_dir is not None and store is not None:
            raise UsageError("state_dir= and store= are two places for the same: give one of them")
        config = config or Config.load()
        secret = secret_of(secret_file, insecure=insecure, config=config)
        sealed = encrypts(encrypt, secret, drawn=False, insecure=insecure, config=config)
        _core.name_libssl(config.libssl)
        timing = config.apply(_core.Timing())
        folder = "" if state_dir is None else os.path.abspath(state_dir)
        elected = store if isinstance(store, EtcdStore) else None
        try:
            if elected is not None:
                elected.campaign()  # before it listens: peers that dial a standby go on to the next address
            self._core = _core.Master(listen, secret, sealed, insecure, timing, state_dir=folder, store=store)
        except BaseException:
            if elected is not None:
                elected.close()
            raise
        if elected is not None:
            elected.attach(self._core)
        self._process = os.getpid()
        self._finalizer = weakref.finalize(self, _stop, self._core, elected, self._process)

    @property
    def address(self) -> str:
        """host:port that it listens on, and that peers of this host dial."""
        return self._core.address

    def addresses(self) -> list[str]:
        """What peers can dial, best first."""
        return list(self._core.addresses())

    def status(self) -> dict[str, Any]:
        """Of the trainers of the run without a name: `{"view": number, "peers": [(peer, island, group), ...],
        "waiting": islands at the door}`, of its keepers the same under `"keepers"`; and of all runs and roles
        `"runs": {name: peers in it and at its door}` and `"departures"`: how often they
        became fewer, and `"fenced"`: why it serves no more, else ""."""
        return dict(self._core.status())

    def report(self) -> dict[str, Any]:
        """What a dashboard shows, of all runs, ready for JSON. Raises ClosedError after stop().

        `{"time": now, "runs": {name: {...}}, "events": [(time, run, text), ...], "events_written": n}`; of
        a run: "view" (incarnation, number), "boundaries", "waiting", "phase" ("serving", "listening",
        "suspended"), "door", "commits", "failures", "views" and "removed" since this master began, "members",
        "rings" (peers by group), "links" ((from, to, bytes per second, round trip in s), 0: not measured),
        "operations" (the first 64) and "operations_open", "recent_failures": the newest 50, as (seconds ago,
        "peer gone", "evicted", "begun anew" or "operation failed", text). Times are seconds since 1970.
        """
        found = self._core.report() if self._finalizer.alive else None
        if found is None:
            raise ClosedError("the master was stopped, or does not answer")
        return {"time": time.time(), **found}

    @property
    def fenced(self) -> str:
        """Why it serves no more, though nobody stopped it: its lease is over, or another has its runs."""
        return self._core.fenced

    def stop(self) -> None:
        """Peers then raise MasterLost. Does nothing the second time, or in a forked child."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _stop(master: _core.Master, elected: EtcdStore | None, process: int) -> None:
    if os.getpid() != process:
        return
    master.stop()
    if elected is not None:
        elected.close()
