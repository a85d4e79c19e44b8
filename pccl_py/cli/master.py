"""`python -m pccl_py master`: a master until it is told to stop."""

from __future__ import annotations

import argparse
import json
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..config import Config
from ..errors import PcclError, UsageError
from ..master import Dashboard, EtcdStore, Master
from ..master.etcd_store import LEASE_S

LISTEN = "127.0.0.1:48148"
FIRST_PEER_S = 60.0  # imports and slow starts
LOOK_S = 0.1  # between looks whether it still serves


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "master",
        help="run a master",
        description="Runs a master until SIGINT or SIGTERM. Prints the line that peers need, then each view.",
    )
    parser.add_argument(
        "--listen", default=LISTEN, metavar="HOST:PORT", help=f"default {LISTEN}; port 0: any"
    )
    parser.add_argument(
        "--secret-file",
        metavar="FILE",
        help="a secret of 16 bytes or more, the same for peers (default: PCCL_SECRET_FILE)",
    )
    parser.add_argument(
        "--no-encryption",
        action="store_true",
        help="the secret only proves who is there (default: PCCL_ENCRYPT); the same for peers: encrypt=False",
    )
    parser.add_argument("--insecure", action="store_true", help="serve other hosts without a secret")
    parser.add_argument(
        "--orphan-s", type=float, metavar="S", help="end S seconds after the last peer of all runs has left"
    )
    parser.add_argument("--announce-fd", type=int, metavar="FD", help=argparse.SUPPRESS)  # addresses, as JSON
    parser.add_argument(
        "--held-fd", type=int, metavar="FD", help=argparse.SUPPRESS
    )  # --orphan-s begins at its end
    parser.add_argument(
        "--state-dir",
        metavar="DIR",
        help="keep each run's newest view there, so that a master started with it goes on after a kill",
    )
    parser.add_argument(
        "--http",
        metavar="HOST:PORT",
        help="serve a page about its runs there, and /metrics for Prometheus; loopback only",
    )
    parser.add_argument(
        "--http-anywhere", action="store_true", help="--http beyond loopback, to whoever asks"
    )
    etcd = parser.add_argument_group("several masters, of which one serves and the others stand by")
    etcd.add_argument("--etcd", metavar="URL[,URL]", help="members of an etcd cluster, as http://host:2379")
    etcd.add_argument(
        "--etcd-prefix",
        default="pccl",
        metavar="NAME",
        help="the same for masters of one group (default pccl)",
    )
    etcd.add_argument(
        "--lease-s",
        type=float,
        default=LEASE_S,
        metavar="S",
        help=f"a master that etcd has not heard for so long is followed by another (default {LEASE_S:g})",
    )


def run(args: argparse.Namespace) -> int:
    if args.orphan_s is not None and not args.orphan_s > 0:
        raise UsageError(f"--orphan-s {args.orphan_s}: it is a number of seconds above 0")
    ending = Ending()
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(message)s")
    store = elect(args, ending) if args.etcd is not None else None
    if args.etcd is not None and store is None:
        print("stopped", flush=True)
        return 0
    master = Master(
        args.listen,
        secret_file=args.secret_file,
        encrypt=False if args.no_encryption else None,
        insecure=args.insecure,
        state_dir=args.state_dir,
        store=store,
    )
    with master, serve_page(master, args.http, args.http_anywhere):
        secret_file = None if args.insecure else args.secret_file or Config.load().secret_file or None
        print(
            invitation(master.address, master.addresses(), secret_file, args.insecure, args.no_encryption),
            flush=True,
        )
        if args.announce_fd is not None:
            with open(args.announce_fd, "w") as announced:
                json.dump([*master.addresses()] or [master.address], announced)
        if args.orphan_s is None:
            while not ending.came(LOOK_S) and not master.fenced:
                pass
        else:
            wait_while_needed(master, ending, args.orphan_s, args.held_fd)
        fenced = master.fenced
    if fenced:
        next_step = "peers go on with the master that has the lease; start this one again to stand by"
        raise PcclError(f"serves no more: {fenced}; {next_step}")
    print("stopped", flush=True)
    return 0


@contextmanager
def serve_page(master: Master, listen: str | None, anywhere: bool) -> Iterator[None]:
    if listen is None:
        yield
        return
    with Dashboard(master, listen, anywhere=anywhere) as dashboard:
        print(f"dashboard at {dashboard.url}", flush=True)
        yield


def elect(args: argparse.Namespace, ending: Ending) -> EtcdStore | None:
    """The store of the elected master, once this process is it; None: told to stop before."""
    if args.state_dir is not None:
        raise UsageError("--etcd and --state-dir are two places for the same: give one of them")
    name = f"process {os.getpid()} of {socket.gethostname()} for {args.listen}"
    store = EtcdStore(args.etcd, prefix=args.etcd_prefix, lease_s=args.lease_s, name=name)

    def say(text: str) -> None:
        print(text, flush=True)

    elected = store.campaign(lambda: ending.came(0), say)
    return store if elected else None


class Ending:
    """SIGINT and SIGTERM from now on. Libraries' threads do not block them: blocked here they would not stay
    pending. And sigtimedwait() in a process that was stopped meanwhile returns garbage."""

    def __init__(self) -> None:
        self._told, tells = os.pipe()
        os.set_blocking(tells, False)
        signal.set_wakeup_fd(tells)
        for number in (signal.SIGINT, signal.SIGTERM):
            if (
                signal.getsignal(number) is not signal.SIG_IGN
            ):  # as a shell wants it of what is in the background
                signal.signal(number, lambda *_: None)

    def came(self, within_s: float) -> bool:
        return bool(select.select([self._told], [], [], within_s)[0])


def wait_while_needed(master: Master, ending: Ending, orphan_s: float, held_fd: int | None = None) -> None:
    """Until a signal comes, or no peer has been here for so long. The first one may take longer to come.

    held_fd: the reading end of a pipe; while somebody has the other end, peers may stay away as long as they
    like."""
    holder = select.poll()
    if held_fd is not None:
        holder.register(held_fd, 0)
    alone_since, patience = time.monotonic(), max(orphan_s, FIRST_PEER_S)
    departures = 0  # of runs that are over before anybody looks, too
    while not ending.came(min(LOOK_S, orphan_s / 4)) and not master.fenced:
        now, status = time.monotonic(), master.status()
        held = held_fd is not None and not holder.poll(0)
        if held or any(status["runs"].values()) or status["departures"] != departures:
            departures, alone_since, patience = status["departures"], now, orphan_s
        elif now - alone_since >= patience:
            return


def invitation(
    address: str, addresses: list[str], secret_file: str | None, insecure: bool, plain: bool = False
) -> str:
    """What a peer needs, to copy and paste."""
    best = addresses[0] if addresses else address
    security, flags = "", ""
    if secret_file is not None:
        security, flags = f', secret_file="{secret_file}"', f" --secret-file {secret_file}"
        security += ", encrypt=False" if plain else ""
    elif insecure:
        security, flags = ", insecure=True", " --insecure"
    lines = [
        f"pccl_py master at {address}; peers join with",
        f'  pccl_py.Communicator("{best}"{security})',
        f"  python -m pccl_py demo --master {best}{flags}",
    ]
    if len(addresses) > 1:
        lines.append(f"  or at {', '.join(addresses[1:])}")
    return "\n".join(lines)
