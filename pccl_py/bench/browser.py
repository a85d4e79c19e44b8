"""A headless Chromium that is told what to do over a pair of pipes (Chrome's DevTools protocol)."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Self

from .crew import WorkerFailed, die_with_parent
from .wan import CannotMeasure

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe")
START_S, ANSWER_S = 60.0, 60.0
_READS, _WRITES = 3, 4  # what Chromium has open for it


def found() -> str | None:
    """The program of it that is installed here."""
    return next((path for path in map(shutil.which, NAMES) if path is not None), None)


class Browser:
    """One page: `with Browser(url) as page: page.evaluate("document.title")`.

    Raises CannotMeasure where there is none, WorkerFailed where it does not do what it is told.
    """

    def __init__(self, url: str) -> None:
        program = found()
        if program is None:
            raise CannotMeasure("there is no Chromium on this machine: apt-get install chromium")
        self._asked = 0
        self._buffer = b""
        self._page: dict[str, str] = {}
        with ExitStack() as stack:
            profile = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            self._start(stack, [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"])
            self._open(url)
            self._stack = stack.pop_all()

    def _start(self, stack: ExitStack, command: list[str]) -> None:
        (asks, self._asks), (self._tells, tells) = os.pipe(), os.pipe()
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (asks, tells)]
        parent = os.getpid()

        def settle() -> None:
            die_with_parent(parent)
            for fd, place in zip(theirs, (_READS, _WRITES), strict=True):
                os.dup2(fd, place)

        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(_READS, _WRITES),
            start_new_session=True,
            preexec_fn=settle,
        )
        for fd in (asks, tells, *theirs):
            os.close(fd)
        for fd in (self._asks, self._tells):
            stack.callback(os.close, fd)
        stack.callback(process.wait)
        stack.callback(_kill_all, process.pid)

    def _open(self, url: str) -> None:
        targets = self._call("Target.getTargets", START_S)["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        session = self._call("Target.attachToTarget", targetId=page, flatten=True)
        self._page = {"sessionId": session["sessionId"]}
        self._call("Page.navigate", url=url)

    def evaluate(self, expression: str, within: float = ANSWER_S) -> Any:
        """What it is in the page, or what its promise gives."""
        found = self._call(
            "Runtime.evaluate", within, expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            raise WorkerFailed(f"the page: {found['exceptionDetails']}")
        return found["result"].get("value")

    def _call(self, method: str, within: float = ANSWER_S, **parameters: Any) -> Any:
        self._asked += 1
        asked = {"id": self._asked, "method": method, "params": parameters} | self._page
        until = time.monotonic() + within
        try:
            os.write(self._asks, json.dumps(asked).encode() + b"\0")
            while True:
                told = self._receive(until)
                if told.get("id") == self._asked:
                    break
        except OSError as error:
            raise WorkerFailed(f"Chromium has ended in {method}: {error}") from None
        if "error" in told:
            raise WorkerFailed(f"Chromium, {method}: {told['error']}")
        return told["result"]

    def _receive(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._tells], [], [], left)[0]:
                raise WorkerFailed("Chromium does not answer")
            part = os.read(self._tells, 1 << 16)
            if not part:
                raise WorkerFailed("Chromium has ended")
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        told: dict[str, Any] = json.loads(text)
        return told

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def _kill_all(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
