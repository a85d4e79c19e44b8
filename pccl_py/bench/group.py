"""The processes of a measurement on this host: a master, peers, and gloo's process group beside them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import Any

from ..errors import UsageError
from . import namespace, transports
from .crew import Crew, Worker, each
from .machine import OthersCpu
from .peers import start_master
from .timed_peer import TimedPeer

GLOO = "gloo"
PEERS_MAX = 16
SECURITY = ("none", "proved", "encrypted")


@dataclass(frozen=True)
class Group:
    """congestion_control: "auto": ours picks its own, the other library runs on reno. "default": ours picks
    its own, the other runs on the system's. "system" or a kernel's name: both on that. `namespace`: with
    `against`, in one of its own, as the other library takes the default of the namespace."""

    peers: int = 2
    against: str | None = None
    congestion_control: str = "auto"
    transport: str = "auto"
    namespace: bool = True
    secret: bool = False  # the peers also meet in a second run that has one
    security: str = "none"  # of the run itself: one of SECURITY

    def check(self) -> None:
        if self.against not in (None, GLOO):
            raise UsageError(f"--against {self.against}: only gloo is known")
        if self.against is not None and find_spec("torch") is None:
            raise UsageError("--against gloo needs torch: pip install 'pccl-py[torch]'")
        if not 2 <= self.peers <= PEERS_MAX:
            raise UsageError(f"{self.peers} peers: 2 to {PEERS_MAX} can be measured")
        known = ["auto", "default", "system", *namespace.known_congestion_controls()]
        if self.congestion_control not in known and len(known) > 3:
            given = f"--congestion-control {self.congestion_control}"
            raise UsageError(f"{given}: it is one of {', '.join(known)}")
        transports.check(self.transport)

    @property
    def ours(self) -> str:
        return "auto" if self.congestion_control == "default" else self.congestion_control

    @property
    def default(self) -> str | None:
        """The namespace's default congestion control; None: no namespace of its own."""
        if self.against is None or not self.namespace:
            return None
        if self.congestion_control in ("default", "system"):
            return namespace.default_congestion_control() or None
        return "reno" if self.congestion_control == "auto" else self.congestion_control


@dataclass(frozen=True)
class Setting:
    """What all rows have in common. `namespace`: which one it ran in, for people. `default`: its congestion
    control, and that of `against`."""

    peers: int
    congestion_control: str
    default: str
    namespace: str
    against: str | None
    transport: str
    secret: bool = False


@dataclass(frozen=True)
class Running:
    """The peers' processes, in a run together."""

    group: Group
    master: Worker
    workers: list[Worker]
    about: dict[str, Any]  # MasterHost.describe
    version: str  # of torch, against gloo

    def setting(self) -> Setting:
        """As it is now: links choose their ways when they carry something."""
        return _setting(self.group, self.about, self.workers, self.version)

    def each(self, method: str, **arguments: Any) -> list[Any]:
        return each(self.workers, method, **arguments)

    def others_cpu(self) -> OthersCpu:
        return OthersCpu([self.master, *self.workers])


@contextmanager
def running(group: Group, kind: type[TimedPeer], **settings: Any) -> Iterator[Running]:
    """`settings`: of the peers. Raises UsageError, NotBuilt or WorkerFailed."""
    group.check()
    with Crew() as crew, tempfile.TemporaryDirectory() as folder:
        if group.against is not None:
            import_module("torch")  # once, before the processes are forked
        secured = _security(group.security, Path(folder))
        master, about = start_master(crew, group.default, **secured)
        settings |= secured | {"congestion_control": group.ours, "transport": group.transport}
        workers = [
            crew.start(f"peer {i}", partial(kind, master.pid, i, group.peers, **settings))
            for i in range(group.peers)
        ]
        each(workers, "join", address=about["address"], min_islands=group.peers)
        if group.secret:
            path = _security("encrypted", Path(folder))["secret_file"]
            sealed = start_master(crew, secret_file=path)[1]["address"]
            each(workers, "join_sealed", address=sealed, secret_file=path, min_islands=group.peers)
        version = ""
        if group.against is not None:
            version = each(workers, "join_gloo", store=str(Path(folder) / "store"))[0]
        yield Running(group, master, workers, about, version)


def _security(kind: str, folder: Path) -> dict[str, Any]:
    """Fields of Config for master and peers."""
    if kind == "none":
        return {}
    path = folder / "secret"
    path.touch(mode=0o600)
    path.write_text(token_hex())
    return {"secret_file": str(path), "encrypt": "yes" if kind == "encrypted" else "no"}


def _setting(group: Group, master: dict[str, Any], workers: list[Worker], version: str) -> Setting:
    where = f"the host's, default {master['default']}"
    if master["isolated"]:
        where = f"its own, default {master['default']}"
    elif master["why"]:
        where += f" (none with {group.default}: {master['why']})"
    names, paths = (
        "/".join(sorted(set(each(workers, what)))) for what in ("congestion_control", "transport")
    )
    against = f"{group.against} (torch {version})" if group.against is not None else None
    return Setting(group.peers, names, master["default"], where, against, paths, group.secret)
