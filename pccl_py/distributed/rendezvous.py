"""How ranks that share one of torch's stores find, or start, their master."""

from __future__ import annotations

import itertools
import json
import os
import platform
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..config import Config
from ..errors import ConnectError, UsageError
from ..secret import encrypts, read_secret
from .launch import Hold, start_master
from .member import Member, member_of
from .torch_names import PrefixStore, Store, TCPStore

ORPHAN_S = 10.0
ANSWER_S = 2.0  # of a master that may have ended
LOOPBACK = ("localhost", "127.", "::1", "[::1]")


@dataclass(frozen=True)
class Meeting:
    """Where the peers of a run meet. `addresses`: of the master, best first; `local`: all on one host.
    Raises UsageError where PCCL_ENCRYPT asks for something else than the others agreed on."""

    addresses: tuple[str, ...]
    run: str
    secret: bytes
    encrypt: bool  # what the secret does, see secret.encrypts()
    local: bool
    held: Hold | None = field(default=None, compare=False)  # keeps the master from ending without peers

    def __post_init__(self) -> None:
        asked = Config.load().encrypt
        if (asked == "yes" and not self.encrypt) or (asked == "no" and self.encrypt):
            agreed = "encrypts" if self.encrypt else "does not encrypt"
            raise UsageError(
                f"PCCL_ENCRYPT is {asked!r} here, and the run at this store {agreed}: set it on all"
            )

    def within(self, name: str) -> Meeting:
        """The meeting of a subgroup, at the same master."""
        return replace(self, run=f"{self.run}/{name}"[:256])

    def join(self, rank: int | None, size: int, timeout: float | None, **options: Any) -> Member:
        """As one of `size`, at `rank` when all come together."""
        if self.local:
            options.setdefault("listen", "127.0.0.1:0")
        options |= {"run_name": self.run, "start_rank": rank, "min_islands": size, "timeout": timeout}
        errors = []
        for address in self.addresses:
            try:
                return member_of(address, self.secret, self.encrypt, **options)
            except ConnectError as error:
                errors.append(str(error))
        raise ConnectError("; ".join(errors))


def meet(store: Store, world: str, *, hold: bool = False) -> Meeting:
    """Agrees on a meeting with the others at this store. The first one provides it. `hold`: a master that it
    starts stays while that process lives, whether or not peers are there.

    PCCL_MASTER=host:port: a master that runs already, and PCCL_RUN_NAME its run. PCCL_SECRET_FILE: a secret
    of your own, else one is drawn; which encrypts only where PCCL_ENCRYPT=yes says so: whoever reads the
    store reads it too, and what torch itself sends is plain. PCCL_MASTER_LISTEN=host:port: where a master
    that is started listens.
    """
    for generation in itertools.count():
        told, held = _told(store, f"pccl/{world}" + (f"/{generation}" if generation else ""), hold)
        if not _is_over(told):
            break
    if "error" in told:
        raise ConnectError(f"the rank that was to start the master could not: {told['error']}")
    addresses = in_order(told["addresses"], told["host"])
    return _meeting_of(told, tuple(addresses), held)


def _told(store: Store, key: str, hold: bool) -> tuple[dict[str, Any], Hold | None]:
    """What the first one here says, and its hold on the master if that is this process."""
    held = None
    if store.add(f"{key}/first", 1) == 1:
        held = Hold() if hold else None
        try:
            text = _provide(_host_of(store), held)
        except Exception as error:
            store.set(f"{key}/meeting", json.dumps({"error": str(error), "life": _life()}))
            raise
        store.set(f"{key}/meeting", text)
    return json.loads(store.get(f"{key}/meeting")), held


def _life() -> str:
    """How often torchrun has started this worker anew."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


def _is_over(told: dict[str, Any]) -> bool:
    """Whether earlier workers left it behind: torchrun gives those that it starts anew the same store. Only a
    meeting that may be old is dialled here; one that all have just agreed on is dialled by join()."""
    if told["life"] == _life() and abs(time.time() - told.get("at", 0.0)) < ORPHAN_S:
        return False
    if "error" in told:
        return bool(told["life"] != _life())
    if os.environ.get("PCCL_MASTER"):  # whoever started it starts it again
        return False
    return not any(_answers(address) for address in told["addresses"])


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    except OSError:
        return False
    return True


def own_meeting() -> Meeting:
    """Of one process that shares no store with others: they are told of it."""
    held = Hold()
    told = json.loads(_provide(os.environ.get("MASTER_ADDR", ""), held))
    return _meeting_of(told, tuple(told["addresses"]), held)


def _meeting_of(told: dict[str, Any], addresses: tuple[str, ...], held: Hold | None) -> Meeting:
    secret = bytes.fromhex(told["secret"])
    return Meeting(addresses, told["run"], secret, told["encrypt"], told["local"], held)


def _provide(host: str, held: Hold | None = None) -> str:
    known = os.environ.get("PCCL_MASTER")
    secret = read_secret(_secret_file(), insecure=False)
    drawn = not known and not secret
    if drawn:
        secret = secrets.token_hex(32).encode()
    encrypt = encrypts(None, secret, drawn=drawn, insecure=False, config=Config.load())
    if known:
        local, addresses = known.startswith(LOOPBACK), [known]
    else:
        local = host.startswith(LOOPBACK)
        listen = os.environ.get("PCCL_MASTER_LISTEN") or ("127.0.0.1:0" if local else "0.0.0.0:0")
        orphan_s = float(os.environ.get("PCCL_ORPHAN_S", ORPHAN_S))
        addresses = start_master(listen, secret, encrypt, orphan_s, held)
    run = os.environ.get("PCCL_RUN_NAME") or f"torch-{secrets.token_hex(6)}"
    told = {"addresses": addresses, "run": run, "secret": secret.hex(), "encrypt": encrypt, "local": local}
    return json.dumps(told | {"host": platform.node(), "life": _life(), "at": time.time()})


def _secret_file() -> str | None:
    return os.environ.get("PCCL_SECRET_FILE") or None  # empty: none


def _host_of(store: Store) -> str:
    """Where the store is, which tells whether the ranks are on several hosts."""
    while isinstance(store, PrefixStore):
        store = store.underlying_store
    if isinstance(store, TCPStore):
        return str(store.host)
    return os.environ.get("MASTER_ADDR", "localhost")


def in_order(addresses: Sequence[str], host: str) -> list[str]:
    """On the master's own host its loopback address first, elsewhere never."""
    loopback = [address for address in addresses if address.startswith(LOOPBACK)]
    others = [address for address in addresses if address not in loopback]
    if host == platform.node():
        return [*loopback, *others]
    return others or loopback


def meeting_of_url(url: str) -> Meeting:
    """`pccl://host:port?run_name=...&secret_file=...&encrypt=no`: a run that exists."""
    from urllib.parse import parse_qs, urlsplit

    parts = urlsplit(url)
    known = {"run_name", "secret_file", "encrypt", "rank", "world_size"}
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    if not parts.netloc or query.keys() - known or query.get("encrypt") not in (None, "yes", "no"):
        form = "pccl://host:port?run_name=NAME&secret_file=FILE&encrypt=yes|no"
        raise UsageError(f"init_method={url!r}: it is {form}")
    secret = read_secret(query.get("secret_file") or _secret_file(), insecure=False)
    run = query.get("run_name") or os.environ.get("PCCL_RUN_NAME", "")
    asked = {"yes": True, "no": False}.get(query.get("encrypt", ""))
    encrypt = encrypts(asked, secret, drawn=False, insecure=False, config=Config.load())
    return Meeting((parts.netloc,), run, secret, encrypt, parts.netloc.startswith(LOOPBACK))
