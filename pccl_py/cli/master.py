"""`python -m pccl_py master`: a master until it is told to stop."""

from __future__ import annotations

import argparse
import json
import logging
import select
import signal
import sys
import time
from typing import Any

from ..errors import UsageError
from ..master import Master

LISTEN = "127.0.0.1:48148"
FIRST_PEER_S = 60.0  # imports and slow starts


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
        "--secret-file", metavar="FILE", help="a secret of 16 bytes or more, the same for peers"
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


def run(args: argparse.Namespace) -> int:
    if args.orphan_s is not None and not args.orphan_s > 0:
        raise UsageError(f"--orphan-s {args.orphan_s}: it is a number of seconds above 0")
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(
        signal.SIG_BLOCK, signals
    )  # before threads start, so that only sigwait() sees them
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(message)s")
    master = Master(
        args.listen, secret_file=args.secret_file, insecure=args.insecure, state_dir=args.state_dir
    )
    with master:
        print(invitation(master.address, master.addresses(), args.secret_file, args.insecure), flush=True)
        if args.announce_fd is not None:
            with open(args.announce_fd, "w") as announced:
                json.dump([*master.addresses()] or [master.address], announced)
        if args.orphan_s is None:
            signal.sigwait(signals)
        else:
            wait_while_needed(master, signals, args.orphan_s, args.held_fd)
    print("stopped", flush=True)
    return 0


def wait_while_needed(
    master: Master, signals: set[signal.Signals], orphan_s: float, held_fd: int | None = None
) -> None:
    """Until a signal comes, or no peer has been here for so long. The first one may take longer to come.

    held_fd: the reading end of a pipe; while somebody has the other end, peers may stay away as long as they
    like."""
    holder = select.poll()
    if held_fd is not None:
        holder.register(held_fd, 0)
    alone_since, patience = time.monotonic(), max(orphan_s, FIRST_PEER_S)
    departures = 0  # of runs that are over before anybody looks, too
    while signal.sigtimedwait(signals, min(1.0, max(0.05, orphan_s / 4))) is None:
        now, status = time.monotonic(), master.status()
        held = held_fd is not None and not holder.poll(0)
        if held or any(status["runs"].values()) or status["departures"] != departures:
            departures, alone_since, patience = status["departures"], now, orphan_s
        elif now - alone_since >= patience:
            return


def invitation(address: str, addresses: list[str], secret_file: str | None, insecure: bool) -> str:
    """What a peer needs, to copy and paste."""
    best = addresses[0] if addresses else address
    security, flags = "", ""
    if secret_file is not None:
        security, flags = f', secret_file="{secret_file}"', f" --secret-file {secret_file}"
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
