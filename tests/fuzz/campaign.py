"""One target under mutants. Guided: lines that follow each other in the package's code are told apart, and
what takes a new way is mutated further."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pccl_py

from .mutate import mutate
from .targets import Target

CORPUS = Path(__file__).resolve().parents[1] / "corpus"
_OURS = str(Path(pccl_py.__file__).parent)
SLOW_S = 2.0  # no input of a few KiB takes so long


class Fault(AssertionError):
    """A decoder did what it must not, with these bytes."""


def read_corpus(name: str) -> list[bytes]:
    path = CORPUS / f"{name}.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [bytes.fromhex(line) for line in lines if not line.startswith("#")]


def write_corpus(name: str, inputs: list[bytes]) -> None:
    (CORPUS / f"{name}.txt").write_text("".join(f"{data.hex()}\n" for data in inputs))


class Campaign:
    def __init__(self, name: str, target: Target, seed: int = 1) -> None:
        self._name, self._target = name, target
        self._draw = random.Random(f"{name} {seed}")
        self.runs = 0
        self.pool = [*target.seeds, *read_corpus(name)]
        self.kept: list[bytes] = []  # what took a new way
        self._ways: set[int] = set()

    @property
    def ways(self) -> int:
        return len(self._ways)

    def replay(self) -> None:
        """The seeds, which must be taken, and the corpus."""
        for number, data in enumerate(self.pool):
            taken = self.one(data)
            if number < len(self._target.seeds) and not taken and self._name != "dcp_index":
                raise Fault(f"{self._name}: seed {number} is refused")

    def run(self, runs: int, seconds: float = float("inf"), *, guided: bool = False) -> None:
        until, last = time.monotonic() + seconds, self.runs + runs
        while self.runs < last and time.monotonic() < until:
            pool = self.pool
            data = mutate(self._draw.choice(pool), self._draw.choice(pool), self._draw)
            if not guided:
                self.one(data)
                continue
            with _traced(self._ways) as new:
                self.one(data)
            if new():
                self.kept.append(data)
                pool.append(data)

    def one(self, data: bytes) -> bool:
        """False: it was refused, as it may be. Raises Fault."""
        self.runs += 1
        began = time.thread_time()
        try:
            self._target.run(data)
            taken = True
        except self._target.raises as error:
            taken = False
            if not str(error):
                raise Fault(f"{self._name}: refused without a reason: {data.hex()}") from error
        except BaseException as error:
            raise Fault(f"{self._name}: {type(error).__name__}: {error}: {data.hex()}") from error
        if time.thread_time() - began > SLOW_S:
            raise Fault(f"{self._name}: {time.thread_time() - began:.1f} s of CPU: {data.hex()}")
        return taken


@contextmanager
def _traced(ways: set[int]) -> Iterator[Callable[[], bool]]:
    """Adds pairs of lines that follow each other to `ways`; what is given says whether any were new."""
    before = len(ways)
    last = 0

    def line(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal last
        here = hash((frame.f_code, frame.f_lineno))
        ways.add(hash((last, here)))
        last = here
        return line

    def call(frame: FrameType, event: str, arg: Any) -> Any:
        return line(frame, event, arg) if frame.f_code.co_filename.startswith(_OURS) else None

    sys.settrace(call)
    try:
        yield lambda: len(ways) > before
    finally:
        sys.settrace(None)
