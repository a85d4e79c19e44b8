"""Finding the keeper of a run, or starting it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
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
    starting = _Starting(place, run, keeper, orphan_s)
    until = time.monotonic() + timeout_s
    try:
        while (connection := connect(place.socket, timeout_s)) is None:
            if time.monotonic() > until:
                words = _last_words(place.log)
                raise SnapshotError(
                    f"the keeper of run {run!r} did not start within {timeout_s:g} s: {words}"
                )
            starting.again()
            time.sleep(LOOK_S)
    finally:
        starting.end()
    return connection


class _Starting:
    """Of a process that forks the keeper, which is nobody's child, and ends at once. It is looked at between
    other things: what waits for a child with a deadline looks every 50 ms, and the keeper is there sooner."""

    def __init__(self, place: places.Place, run: str, keeper: str, orphan_s: float) -> None:
        self._place, self._run = place, run
        self._asked = ["--run", run, "--keeper", keeper, "--orphan-s", repr(orphan_s)]
        self._process: subprocess.Popen[bytes] | None = None
        self._begun = -AGAIN_S

    def again(self) -> None:
        """Unless one is on its way. Raises SnapshotError."""
        if self._has_detached() and time.monotonic() - self._begun > AGAIN_S:
            self._begun = time.monotonic()
            self._start()

    def end(self) -> None:
        """One that is late, as another keeper was found meanwhile, shall not come when that is gone."""
        until = self._begun + START_S
        while self._process is not None and self._process.poll() is None:
            if time.monotonic() > until:
                self._process.kill()
            time.sleep(LOOK_S)

    def _has_detached(self) -> bool:
        status = 0 if self._process is None else self._process.poll()
        if status:
            raise self._failed(f"it ended with status {status}")
        return status == 0

    def _start(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        log = os.open(self._place.log, flags, 0o600)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE, *self._asked],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise self._failed(error) from None
        finally:
            os.close(log)

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
