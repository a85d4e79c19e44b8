"""kill -9 at random instants of save, commit, retirement and removal: what was said to be durable is loaded
again, bit for bit, and nothing of the broken attempt is left.

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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .processes import SIGNAL_S, show_stacks_on_signal, stacks_of
from .report import Report

TENSORS, ELEMENTS = 5, 150_000
KEEP = 2
LONGEST_S = 0.12  # from a saver's first word to its end, at most, or from its second one
PATIENT = 0.25  # of the savers have said something of their saves before they are killed


@dataclass(frozen=True, kw_only=True)
class CheckpointPlan:
    seed: int | None
    kills: int
    hang_s: float
    keep: Path | None
    sabotage: str | None = None


def run_checkpoint(plan: CheckpointPlan, report: Report) -> Report:
    import pccl_py.checkpoint.checkpointer  # noqa: F401 (before the forks)

    root = plan.keep or Path(tempfile.mkdtemp(prefix="pccl-stress-ckpt-"))
    rounds = _Rounds(plan, report, root / "steps")
    begun = time.monotonic()
    try:
        for number in range(plan.kills + 1):
            rounds.one(kill=number < plan.kills)
    finally:
        report.seconds = time.monotonic() - begun
        if plan.keep is None:
            shutil.rmtree(root, ignore_errors=True)
    report.more |= {"steps_saved": rounds.durable + 1, "loads_checked": rounds.loads}
    return report


class _Rounds:
    """Of the parent. `durable`: the newest step that a saver has promised; -1: none."""

    def __init__(self, plan: CheckpointPlan, report: Report, root: Path) -> None:
        self._plan, self._report, self._root = plan, report, root
        self._random = random.Random(report.seed)
        self._stacks = root.parent / "saver.stacks"
        self.durable = -1
        self.loads = 0

    def one(self, *, kill: bool) -> None:
        """A saver, until it is killed; the last one only loads."""
        reading, writing = os.pipe()
        seed = self._random.getrandbits(32)
        child = os.fork()
        if child == 0:
            os.close(reading)
            _in_child(
                self._stacks,
                lambda: _saver(self._root, writing, seed, self._plan.sabotage, only_load=not kill),
            )
        os.close(writing)
        try:
            words = _Words(reading, self._plan.hang_s)
            first = words.next()
            if first is None or first[0] != "loaded":
                self._report.death(f"a saver ended with {first}")
                return
            self._loaded(int(first[1]), first[2])
            if kill:
                if self._random.random() < PATIENT and (said := words.next()) is not None:
                    self._said(said)  # a saver that hangs within a save would say nothing more
                time.sleep(self._random.uniform(0, LONGEST_S))
                os.kill(child, signal.SIGKILL)
                self._report.kills += 1
            for said in words.rest():
                self._said(said)
        except TimeoutError:
            os.kill(child, signal.SIGUSR1)
            time.sleep(SIGNAL_S)
            stacks = stacks_of("saver", child, self._stacks)
            self._report.hang(f"a saver said nothing for {self._plan.hang_s:g} s\n{stacks}")
            os.kill(child, signal.SIGKILL)
        finally:
            os.close(reading)
            os.waitpid(child, 0)

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
        elif said[0] == "failed":
            self._report.death(" ".join(said[1:]))


class _Words:
    """Lines from a pipe, with a deadline each."""

    def __init__(self, descriptor: int, seconds: float) -> None:
        self._descriptor, self._seconds = descriptor, seconds
        self._rest = b""

    def next(self) -> list[str] | None:
        while b"\n" not in self._rest:
            if not select.select([self._descriptor], [], [], self._seconds)[0]:
                raise TimeoutError
            more = os.read(self._descriptor, 65536)
            if not more:
                return None
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode().split("\t")

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


def _saver(root: Path, out: int, seed: int, sabotage: str | None, *, only_load: bool) -> None:
    """Loads what is there, says whether it is right, then saves one step after the other."""
    import torch

    import pccl_py as pccl

    def say(*words: object) -> None:
        os.write(out, ("\t".join(map(str, words)) + "\n").encode())

    torch.set_num_threads(1)
    dice = random.Random(seed)
    try:
        saver = pccl.Checkpointer(root, keep=KEEP, process_group="alone", pool_bytes=32 << 20)
        state: dict[str, Any] = {f"t{index}": torch.zeros(ELEMENTS) for index in range(TENSORS)}
        state["step"] = -1
        with suppress(pccl.NoCheckpointError):
            saver.load({"x": state})
        step = int(state["step"])
        say("loaded", step, _verdict(state, step, root))
        while not only_load:
            if sabotage == "hang":
                signal.pause()
            step += 1
            _fill(state, step)
            saver.save(step, {"x": state})
            if sabotage == "durable":
                say("durable", step)  # a lie: nobody waited
            if dice.random() < 0.7:
                saver.wait()
                say("durable", saver.latest())
            if dice.random() < 0.1:
                saver.gc()
    except pccl.PcclError as error:
        say("failed", type(error).__name__, error)


def _fill(state: dict[str, Any], step: int) -> None:
    state["step"] = step
    for index in range(TENSORS):
        state[f"t{index}"].fill_(step * 31 + index)


def _verdict(state: dict[str, Any], step: int, root: Path) -> str:
    if step >= 0:
        for index in range(TENSORS):
            tensor = state[f"t{index}"]
            if not bool((tensor == step * 31 + index).all()):
                return f"t{index} holds {tensor.unique().tolist()[:4]}, not {step * 31 + index}"
    left = [
        str(path)
        for path in root.iterdir()
        if not path.name.startswith(".") and not (path / "manifest.json").exists()
    ]
    parts = [str(path) for path in root.rglob("*.part")]
    return f"left over: {left + parts}" if left or parts else "right"
