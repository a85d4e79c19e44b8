"""Trainers of `bench snapshot`, each as if on a host of its own: started, and what they leave ended."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from ..snapshot import launch
from .crew import Crew, Worker
from .snapshot_trainer import CodedTrainer


class Hosts:
    """`host`: CodedTrainer's, for each of them. `transport`: of keepers."""

    def __init__(self, crew: Crew, place: str, transport: str) -> None:
        self._crew, self._place, self._transport = crew, place, transport
        self._trainers: list[Worker] = []

    def start(self, number: int, host: int | str) -> Worker:
        trainer = self._crew.start(
            f"trainer {number}", partial(CodedTrainer, host, number, self._place, self._transport)
        )
        self._trainers.append(trainer)
        return trainer

    def kill(self, trainer: Worker) -> float:
        """With its keeper, at the same moment, which is returned, on the system's clock: not when they have
        given back their memory, and are gone. `bury` it then."""
        keeper = trainer.call("keeper")
        killed = time.monotonic()
        os.kill(keeper, signal.SIGKILL)
        trainer.signal(signal.SIGKILL)
        return killed

    def bury(self, trainer: Worker) -> None:
        self._trainers.remove(trainer)
        self._crew.end(trainer)

    def end(self) -> None:
        """Trainers first: they would replace a keeper that is killed, and hand it their snapshots."""
        for trainer in list(self._trainers):
            self.bury(trainer)
        while keepers := _keepers_in(self._place):  # one that just begins forks once more
            for keeper in keepers:
                with suppress(ProcessLookupError):
                    os.kill(keeper, signal.SIGKILL)
            time.sleep(0.01)


def _keepers_in(place: str) -> list[int]:
    """Process ids, also of those that nobody could ask yet."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            theirs = (process / "environ").read_bytes().split(b"\0")
            if f"XDG_RUNTIME_DIR={place}".encode() in theirs and launch.MODULE.encode() in (
                process / "cmdline"
            ).read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


@contextmanager
def hosts(crew: Crew, transport: str) -> Iterator[Hosts]:
    """Their keepers are in a folder of their own, and end with the block."""
    place = tempfile.mkdtemp(prefix="pb-")  # short: a socket's path is
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = place
    all_of_them = Hosts(crew, place, transport)
    try:
        yield all_of_them
    finally:
        all_of_them.end()
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
        shutil.rmtree(place, ignore_errors=True)
