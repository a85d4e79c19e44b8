"""`python -m pccl_py.snapshot.keeper`: the process that holds snapshots and outlives trainers.

Started by the first trainer; in a session of its own, so that signals to the trainer and its terminal miss
it. Whoever holds the lock file is the keeper; another one that is started meanwhile ends at once.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from . import limits, places
from .server import Server


def serve(run: str, keeper: str, orphan_s: float) -> int:
    place = places.place(run, keeper)
    if not _lock(place.lock):
        return 0  # there is one
    listener = _listen(place.socket)
    server = Server(listener, run, keeper, orphan_s)
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    try:
        server.run()
    finally:
        place.socket.unlink(missing_ok=True)
        place.log.unlink(missing_ok=True)
        place.lock.unlink(missing_ok=True)
    return 0


def _lock(path: Path) -> bool:
    """For as long as this process lives."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_ino == path.stat().st_ino:
                return True
        except BlockingIOError:
            os.close(lock)
            return False
        except FileNotFoundError:
            pass
        os.close(lock)  # of a keeper that removed it as it ended


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # of a keeper that was killed: the lock says that there is none
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(limits.TRAINERS_MAX)
    return listener


def _detach() -> None:
    """A child of nobody, so that no trainer has to wait for its end."""
    if os.fork() > 0:
        os._exit(0)
    os.setsid()
    os.chdir("/")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Holds snapshots in memory; started by trainers.")
    parser.add_argument("--run", required=True)
    parser.add_argument("--keeper", default="host")
    parser.add_argument("--orphan-s", type=float, default=60.0)
    parser.add_argument("--foreground", action="store_true", help="for those who watch it")
    args = parser.parse_args(argv)
    if not args.foreground:
        _detach()
    logging.basicConfig(format="%(asctime)s keeper %(process)d: %(message)s", level=logging.INFO)
    return serve(args.run, args.keeper, args.orphan_s)


if __name__ == "__main__":
    sys.exit(main())
