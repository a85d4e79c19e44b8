"""A master inside this process, on a thread of its own."""

from __future__ import annotations

import os
import weakref
from types import TracebackType
from typing import Any, Self

from .. import _core
from ..config import Config
from ..errors import UsageError
from ..logs import tie
from ..secret import read_secret

tie(_core)


class Master:
    """`with Master() as master:` admits peers at `master.address` until the block ends. Prints nothing.

    listen        host:port; port 0: any that is free. More than loopback needs one of the next two
    secret_file   at least 16 bytes that all peers share
    insecure      True: other hosts without a secret
    state_dir     a folder of this master alone, where the newest view of each run is kept: a master that is
                  started there after this one was killed goes on with its runs. Without it the peers' own
                  memory must do: more than half of the last view have to come back (NoQuorumError otherwise)

    Raises UsageError or ConnectError when it cannot listen there. What it does is logged under "pccl_py".
    """

    def __init__(
        self,
        listen: str = "127.0.0.1:0",
        *,
        secret_file: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        state_dir: str | os.PathLike[str] | None = None,
        config: Config | None = None,
    ) -> None:
        if not isinstance(listen, str) or not listen:
            raise UsageError(f"listen={listen!r}: it is 'host:port'")
        secret = read_secret(secret_file, insecure=insecure)
        timing = (config or Config.load()).apply(_core.Timing())
        folder = "" if state_dir is None else os.path.abspath(state_dir)
        self._core = _core.Master(listen, secret, insecure, timing, state_dir=folder)
        self._process = os.getpid()
        self._finalizer = weakref.finalize(self, _stop, self._core, self._process)

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

    def stop(self) -> None:
        """Peers then raise MasterLost. Does nothing the second time, or in a forked child."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _stop(master: _core.Master, process: int) -> None:
    if os.getpid() == process:
        master.stop()
