"""kill -9 at random instants of saving, uploading and converting: what was said to be durable is loaded
again, bit for bit, and nothing of the broken attempt is left. What a saver does, `checkpoint_savers` says.

Each round forks a saver from a process that has everything imported but no thread yet, so that a thousand
kills take minutes.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .checkpoint_savers import WAYS, Task, prepare
from .processes import SIGNAL_S, show_stacks_on_signal, stacks_of
from .progress import signs_of, threads_of, works
from .report import Report

# From a saver's first word to its end, at most, or from its second one: about as long as two rounds of its
# work take.
LONGEST_S = {"save": 0.12, "upload": 0.25, "dcp": 0.12, "convert": 0.6}
PATIENT = 0.25  # of the savers have said something of their saves before they are killed
LOST = 0.1  # of the kills that take the local folder with them, where there is a remote
PATIENCE = 6  # times as long as a silent saver may take, one may that works, or whose device does not answer


@dataclass(frozen=True, kw_only=True)
class CheckpointPlan:
    seed: int | None
    kills: int
    hang_s: float
    keep: Path | None
    way: str = "save"
    sabotage: str | None = None


def run_checkpoint(plan: CheckpointPlan, report: Report) -> Report:
    prepare(plan.way)
    root = plan.keep or Path(tempfile.mkdtemp(prefix="pccl-stress-ckpt-"))
    rounds = _Rounds(plan, report, root / "run")
    begun = time.monotonic()
    try:
        for number in range(plan.kills + 1):
            rounds.one(kill=number < plan.kills)
    finally:
        report.seconds = time.monotonic() - begun
        if plan.keep is None:
            shutil.rmtree(root, ignore_errors=True)
    report.more |= {"steps_saved": rounds.durable + 1, "loads_checked": rounds.loads}
    if plan.way == "upload":
        report.more |= {"steps_uploaded": rounds.uploaded + 1, "folders_lost": rounds.lost}
    return report


class _Rounds:
    """Of the parent. `durable`: the newest step that a saver has promised; -1: none."""

    def __init__(self, plan: CheckpointPlan, report: Report, root: Path) -> None:
        self._plan, self._report, self._root = plan, report, root
        self._random = random.Random(report.seed)
        self._stacks = root.parent / "saver.stacks"
        self.durable = self.uploaded = -1
        self.loads = self.lost = 0
        self._root.mkdir(parents=True, exist_ok=True)

    def one(self, *, kill: bool) -> None:
        """A saver, until it is killed; the last one only loads."""
        reading, writing = os.pipe()
        seed = self._random.getrandbits(32)
        child = os.fork()
        if child == 0:
            os.close(reading)
            task = Task(self._root, writing, seed, self._plan.sabotage, not kill)
            _in_child(self._stacks, lambda: WAYS[self._plan.way](task))
        os.close(writing)
        try:
            words = _Words(reading, child, self._plan.hang_s)
            first = words.next()
            if first is None or first[0] != "loaded":
                self._report.death(f"a saver ended with {first}")
                return
            self._loaded(int(first[1]), first[2])
            if kill:
                if self._random.random() < self._patient_share and (said := words.next()) is not None:
                    self._said(said)  # a saver that hangs within a save would say nothing more
                time.sleep(self._random.uniform(0, LONGEST_S[self._plan.way]))
                os.kill(child, signal.SIGKILL)
                self._report.kills += 1
            for said in words.rest():
                self._said(said)
        except TimeoutError as error:
            os.kill(child, signal.SIGUSR1)
            time.sleep(SIGNAL_S)
            stacks = stacks_of("saver", child, self._stacks)
            self._report.hang(f"{error}\n{threads_of(child)}\n{stacks}")
            os.kill(child, signal.SIGKILL)
        finally:
            os.close(reading)
            self._bury(child)
        if kill and self._plan.way == "upload" and self._random.random() < self._lost_share:
            shutil.rmtree(self._root / "local")
            self.durable = self.uploaded
            self.lost += 1

    @property
    def _patient_share(self) -> float:
        return 1.0 if self._plan.sabotage else PATIENT

    @property
    def _lost_share(self) -> float:
        return 1.0 if self._plan.sabotage == "uploaded" else LOST

    def _bury(self, child: int) -> None:
        """It ends by itself or was killed; a device that does not answer keeps it."""
        until = time.monotonic() + PATIENCE * self._plan.hang_s
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > until:
                self._report.hang(f"a saver (pid {child}) does not end:\n{threads_of(child)}")
                os.kill(child, signal.SIGKILL)
                return
            time.sleep(0.001)

    def _loaded(self, step: int, verdict: str) -> None:
        self.loads += step >= 0
        self._report.operations += step >= 0  # a run that never had anything to load has shown nothing
        if step < self.durable:
            self._report.wrong(f"step {self.durable} was durable, step {step} was loaded")
        if verdict != "right":
            self._report.wrong(f"step {step}: {verdict}")
        self.durable = max(self.durable, step)

    def _said(self, said: list[str]) -> None:
        if said[0] == "durable":
            self.durable = max(self.durable, int(said[1]))
            self._report.operations += 1
        elif said[0] == "uploaded":
            self.uploaded = max(self.uploaded, int(said[1]))
        elif said[0] == "wrong":
            self._report.wrong(" ".join(said[1:]))
        elif said[0] == "failed":
            self._report.death(" ".join(said[1:]))


class _Words:
    """Lines from a saver's pipe, with a deadline each. What it says that it begins to do is kept, so that
    silence has a name."""

    def __init__(self, descriptor: int, child: int, seconds: float) -> None:
        self._descriptor, self._child, self._seconds = descriptor, child, seconds
        self._rest = b""
        self._doing = "start"

    def next(self) -> list[str] | None:
        """The next line but those; None: it is gone. Raises TimeoutError."""
        while True:
            while b"\n" not in self._rest:
                self._wait()
                more = os.read(self._descriptor, 65536)
                if not more:
                    return None
                self._rest += more
            line, _, self._rest = self._rest.partition(b"\n")
            words = line.decode().split("\t")
            if words[0] != "doing":
                return words
            self._doing = " ".join(words[1:])

    def _wait(self) -> None:
        """Longer than `seconds` where it works all the time, or its device does not answer."""
        for turn in range(1, PATIENCE + 1):
            before = signs_of(self._child)
            if select.select([self._descriptor], [], [], self._seconds)[0]:
                return
            if turn == PATIENCE or not works(before, signs_of(self._child)):
                silent = turn * self._seconds
                raise TimeoutError(f"a saver said nothing for {silent:g} s; it had begun: {self._doing}")

    def rest(self) -> list[list[str]]:
        found = []
        while (words := self.next()) is not None:
            found.append(words)
        return found


def _in_child(stacks: Path, work: Callable[[], None]) -> None:
    status = 1
    try:
        show_stacks_on_signal(stacks)
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
