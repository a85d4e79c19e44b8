"""Finding the keeper of a run, or starting it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from ..errors import SnapshotError
from . import channel, places

MODULE = "pccl_py.snapshot.keeper"
AGAIN_S = 3.0  # a keeper that was started and is not there after so long is started once more
LOOK_S = 0.005
START_S = 60.0  # for its imports, on a busy machine
_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def connect(path: Path, timeout_s: float) -> socket.socket | None:
    """Greeted on both sides. None: nobody is there. Raises VersionError, RefusedError, ProtocolError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(timeout_s)
    try:
        connection.connect(str(path))
        channel.peer_pid(connection)
        channel.send_raw(connection, channel.greeting())
        data, fds = channel.receive_raw(connection)
    except (ConnectionError, FileNotFoundError, TimeoutError, BlockingIOError):
        connection.close()
        return None
    except BaseException:
        connection.close()
        raise
    channel.close_all(fds)
    if not data:  # it is about to end
        connection.close()
        return None
    try:
        channel.check_greeting(data, f"the keeper at {path}")
    except BaseException:
        connection.close()
        raise
    return connection


def find(run: str, keeper: str, timeout_s: float) -> socket.socket | None:
    """None: there is none."""
    return connect(places.place(run, keeper).socket, timeout_s)


def find_or_start(run: str, keeper: str, orphan_s: float, timeout_s: float) -> socket.socket:
    """Raises SnapshotError where it cannot be started, with what it said."""
    place = places.place(run, keeper)
    until, started = time.monotonic() + timeout_s, -AGAIN_S
    starting: _Starting | None = None
    while True:
        connection = connect(place.socket, timeout_s)
        if connection is not None:
            return connection
        now = time.monotonic()
        if now > until:
            raise SnapshotError(
                f"the keeper of run {run!r} did not start within {timeout_s:g} s: {_last_words(place.log)}"
            )
        detached = starting is None or starting.has_detached()
        if detached and now - started > AGAIN_S:
            started, starting = now, _Starting(place, run, keeper, orphan_s)
        time.sleep(LOOK_S)


class _Starting:
    """A process that forks the keeper, which is nobody's child, and ends at once. Nobody waits for that end:
    what waits with a deadline looks every 50 ms, and the keeper is there sooner."""

    def __init__(self, place: places.Place, run: str, keeper: str, orphan_s: float) -> None:
        self._place, self._run = place, run
        asked = ["--run", run, "--keeper", keeper, "--orphan-s", repr(orphan_s)]
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        log = os.open(place.log, flags, 0o600)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE, *asked],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise self._failed(error) from None
        finally:
            os.close(log)
        threading.Thread(target=self._bury, name="pccl-keeper-start", daemon=True).start()

    def _bury(self) -> None:
        try:
            self._process.wait(START_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(START_S)

    def has_detached(self) -> bool:
        """Raises SnapshotError where it has failed."""
        status = self._process.poll()
        if status:
            raise self._failed(f"it ended with status {status}")
        return status == 0

    def _failed(self, why: object) -> SnapshotError:
        words = _last_words(self._place.log)
        return SnapshotError(f"the keeper of run {self._run!r} cannot be started: {why}; {words}")


def _environment() -> dict[str, str]:
    """This package is found where it was found here. What a keeper needs of numpy is no linear algebra, whose
    threads and buffers would cost it a tenth of its start."""
    here = str(Path(__file__).resolve().parents[2])
    before = os.environ.get("PYTHONPATH")
    path = here if not before else f"{here}{os.pathsep}{before}"
    return os.environ | {"PYTHONPATH": path} | dict.fromkeys(_THREADS, "1")


def _last_words(log: Path) -> str:
    try:
        text = log.read_text(errors="replace").strip()
    except OSError:
        return "it left no log"
    return f"its log says: {text[-1000:]}" if text else "its log is empty"
