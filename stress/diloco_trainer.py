"""A trainer of `stress run training` and `everything`: a small model under DiLoCo, with checkpoints, and
snapshots that the keepers of all trainers code together. It is killed, also with its keeper, and its
successor takes up what it left; troubles/trainers.py judges what all of them say.

    resumed   source, step, digest, keeper     what it goes on from; the pid of its keeper
    step      step, digest                     its own state after that step, before anybody saves it
    window    number, digest, losses           the shared state; how many keepers may be lost now
    durable   step                             of its checkpoints
    left                                       it was told that the run is over (by the file OVER)
"""

from __future__ import annotations

import hashlib
import logging
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .records import Writer

SYNC_EVERY, SNAPSHOT_EVERY, CHECKPOINT_EVERY = 4, 6, 15
OVER = "over"  # SIGTERM would be a preemption: its keeper would wait for a successor
PAUSE_S = 0.03  # between two steps
ELEMENTS = 4000


@dataclass(frozen=True)
class TrainerTask:
    """`number`: also of its keeper and its failure domain. `founders`: of the run; 1: it goes on already."""

    number: int
    address: str
    run: str
    folder: Path
    founders: int
    insecure: bool
    sabotage: str | None = None


def prepare() -> None:
    """Before the forks: imports everything, also what is imported when it is used first; starts no thread."""
    import torch
    import torch._dynamo  # of every optimizer

    import pccl_py as pccl

    assert pccl.Checkpointer and pccl.Snapshots and pccl.TrainState and pccl.protect and pccl.optim.DiLoCo
    torch.set_num_threads(1)


class _Position:
    """In the data."""

    at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, saved: dict[str, int]) -> None:
        self.at = saved["at"]


class Trainer:
    """Use run(), once."""

    def __init__(self, task: TrainerTask, out: Writer) -> None:
        import torch

        self._task, self._out = task, out
        torch.manual_seed(1)  # all begin alike
        self._weight = torch.nn.Parameter(torch.randn(ELEMENTS))
        self._model = torch.nn.ParameterDict({"weight": self._weight})
        self._inner = torch.optim.SGD(self._model.parameters(), lr=0.05, momentum=0.9)
        self._data = _Position()
        self._durable = -1
        logging.basicConfig(
            stream=sys.stderr, level=logging.INFO, format="%(relativeCreated)8d ms  %(message)s"
        )
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def run(self) -> None:
        """Until the run is over."""
        import pccl_py as pccl

        task, name = self._task, str(self._task.number)
        with self._communicator() as comm:
            outer = pccl.optim.DiLoCo(comm, self._model, self._inner, sync_every=SYNC_EVERY)
            self._inner.register_step_post_hook(self._tell_step)  # after the window's end, before saves
            state = pccl.TrainState(model=self._model, inner=self._inner, outer=outer, data=self._data)
            keep = pccl.Snapshots(
                comm, parity=1, every=SNAPSHOT_EVERY, run=task.run, trainer=name, keeper=name, domain=name,
                on_busy="skip", code_s=10.0, orphan_s=300.0,
            )  # fmt: skip
            saver = pccl.Checkpointer(
                task.folder / f"trainer{name}", every=CHECKPOINT_EVERY, keep=3, process_group="alone",
                on_busy="skip", pool_bytes=32 << 20,
            )  # fmt: skip
            with pccl.protect(state, comm, snapshots=keep, checkpoints=saver) as self._run:
                self._tell_resumed()
                while not (task.folder / OVER).exists():
                    self._step(outer, keep, saver)
                if task.sabotage == "orphan":
                    raise SystemExit("sabotage: its keeper is not told that all is over")
        self._out.say("left")

    def _communicator(self) -> Any:
        import pccl_py as pccl

        while True:
            try:
                return pccl.Communicator(
                    self._task.address,
                    min_islands=self._task.founders,
                    run_name=self._task.run,
                    insecure=self._task.insecure,
                )
            except (
                pccl.RefusedError,
                pccl.ConnectError,
            ) as error:  # its predecessor is there, its way is cut
                self._out.say("refused", why=str(error)[:600])
                time.sleep(0.05)

    def _step(self, outer: Any, keep: Any, saver: Any) -> None:
        import torch

        time.sleep(PAUSE_S)
        self._data.at += 1
        draw = torch.Generator().manual_seed(1_000_000 * self._task.number + self._data.at)
        self._weight.grad = self._weight.detach() - torch.randn(ELEMENTS, generator=draw)
        self._inner.step()
        if outer.pending_steps == 0:
            digest = outer.state_digest()
            if self._task.sabotage == "drift" and outer.windows > 3:
                digest = digest[::-1]
            self._out.say("window", number=outer.windows, digest=digest, losses=keep.status().losses)
        if saver.stats.last is not None and saver.stats.last.step > self._durable:
            self._durable = saver.stats.last.step
            self._out.say("durable", step=self._durable)

    def _tell_step(self, *_: Any) -> None:
        self._out.say("step", step=self._run.step + 1, digest=self._digest())

    def _tell_resumed(self) -> None:
        from pccl_py.snapshot import ask, places

        if self._task.sabotage == "stale":
            self._data.at += 1
        summary = ask.summary(places.place(self._task.run, str(self._task.number)).socket)
        told = self._run.resumed_from["inner"]
        keeper = 0 if summary is None else summary.pid
        self._out.say("resumed", source=told.source, step=told.step, digest=self._digest(), keeper=keeper)

    def _digest(self) -> str:
        """Of what is this trainer's own: the inner optimizer's state and its position in the data."""
        found = hashlib.sha256(str(self._data.at).encode())
        for held in self._inner.state.values():
            found.update(held["momentum_buffer"].numpy().tobytes())
        return found.hexdigest()[:32]
