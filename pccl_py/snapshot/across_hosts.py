"""How a trainer's keeper joins the run, from the trainer's own communicator."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..communicator import Communicator
from ..errors import UsageError
from ..state.boxed import World
from . import bounded, messages


def check_parity(comm: Any, parity: int, code_s: float) -> None:
    if type(parity) is not int or not 0 <= parity <= 255:
        raise UsageError(f"parity={parity!r}: hosts that may be lost at once, 0 to 255")
    if parity and getattr(comm, "joined_with", None) is None:
        raise UsageError("parity= without a Communicator: pass comm=, whose master the keepers join")
    if not code_s >= 0:
        raise UsageError(f"code_s={code_s!r}: seconds, 0 or more")


def protect_by(comm: Any, parity: int, domain: str | None, rate_limit: float | None) -> messages.Protect:
    """Raises UsageError."""
    joined = comm.joined_with
    name = socket.gethostname()[:64] or "host" if domain is None else domain
    if not bounded.is_name(name):
        raise UsageError(f"domain={domain!r}: a printable name, 64 characters at most")
    if rate_limit is not None and not 1 <= rate_limit < 2**46:
        raise UsageError(f"rate_limit={rate_limit!r}: bytes per second, at least 1, or None")
    return messages.Protect(
        master=joined.address,
        secret_file="" if joined.secret_file is None else str(Path(joined.secret_file).resolve()),
        encrypt=joined.encrypt,
        insecure=joined.insecure,
        run_name=joined.run_name,
        listen=_without_port(joined.listen),
        advertise=_without_port(joined.advertise),
        domain=name,
        parity=parity,
        rate=0 if rate_limit is None else int(rate_limit),
    )


def connect_by(comm: Any, world: World, timeout_s: float) -> Callable[[str], Communicator]:
    """How the ranks that train together meet at the run's master by themselves, under a name, each at its
    rank."""
    joined = comm.joined_with

    def connect(name: str) -> Communicator:
        return Communicator(
            joined.address,
            secret_file=joined.secret_file,
            encrypt=joined.encrypt if joined.secret_file else None,
            insecure=joined.insecure,
            run_name=f"{joined.run_name[:40]}/{name}",
            listen=_without_port(joined.listen) or None,
            advertise=_without_port(joined.advertise) or None,
            min_islands=world.size,
            start_rank=world.rank,
            checksum=True,
            timeout=timeout_s,
        )

    return connect


def _without_port(where: Any) -> str:
    """The trainer has its own port: the keeper takes any."""
    if where is None:
        return ""
    first = os.fspath(where) if isinstance(where, str) else str(where[0])
    host, colon, port = first.rpartition(":")
    return host if colon and port.isdigit() and host else first
