"""What a saver does until it is killed. Each first loads what is there and says whether it is right."""

from __future__ import annotations

import os
import random
import signal
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TENSORS, ELEMENTS = 5, 150_000
KEEP = 2
LEASE_S = 0.4  # so long the URL of a killed run is kept for it


@dataclass(frozen=True)
class Task:
    """Of one saver. `out`: where it speaks. `only_load`: it is not killed, and ends by itself.

    sabotage    a fault that has to be found: "hang" in a save; "durable" or "uploaded", which it says before
                it is; "value": what is saved has one wrong element
    """

    root: Path
    out: int
    seed: int
    sabotage: str | None
    only_load: bool

    def say(self, *words: object) -> None:
        os.write(self.out, ("\t".join(map(str, words)) + "\n").encode())

    def doing(self, *words: object) -> None:
        """What it begins to do now."""
        self.say("doing", *words)

    def promise(self, word: str, step: int) -> None:
        """Said too early, by a saver that is sabotaged so."""
        if self.sabotage == word:
            self.say(word, step)

    def fill(self, state: dict[str, Any], step: int) -> None:
        """As fill(), but for the fault."""
        fill(state, step)
        if self.sabotage == "value":
            state[f"t{TENSORS - 1}"][ELEMENTS // 2] += 1


def prepare(way: str) -> None:
    """Before the forks: imports everything, starts no thread."""
    import torch

    import pccl_py.checkpoint.checkpointer

    if way == "upload":
        import pccl_py.checkpoint.fsspec_store
    if way in ("dcp", "convert"):
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
    if way == "dcp":
        import torch.distributed.checkpoint

        import pccl_py.checkpoint.dcp  # noqa: F401
    if way == "convert":
        from .checkpoint_conversions import prepare_conversions

        prepare_conversions()
    torch.set_num_threads(1)


def save(task: Task) -> None:
    """Saves, commits, retires, removes."""
    import pccl_py as pccl

    dice = random.Random(task.seed)
    with told(task):
        saver = pccl.Checkpointer(task.root, keep=KEEP, process_group="alone", pool_bytes=32 << 20)
        state = blank()
        task.doing("load")
        with suppress(pccl.NoCheckpointError):
            saver.load({"x": state})
        step = int(state["step"])
        task.say("loaded", step, verdict(state, step, task.root))
        while not task.only_load:
            step += 1
            task.doing("save of step", step)
            if task.sabotage == "hang":
                signal.pause()
            task.fill(state, step)
            saver.save(step, {"x": state})
            task.promise("durable", step)
            if dice.random() < 0.7:
                task.doing("wait for step", step)
                saver.wait()
                task.say("durable", saver.latest())
            if dice.random() < 0.1:
                task.doing("gc")
                saver.gc()


def upload(task: Task) -> None:
    """The same, and each step goes to a remote; the local folder is lost now and then."""
    import pccl_py as pccl
    from pccl_py.checkpoint import lease

    lease.LEASE_S = LEASE_S
    dice = random.Random(task.seed)
    local, remote = task.root / "local", task.root / "remote"
    with told(task):
        saver = pccl.Checkpointer(
            f"file://{remote}", local=local, keep=KEEP, remote_keep=KEEP, process_group="alone",
            pool_bytes=32 << 20, timeout_s=60.0, compression="zstd" if dice.random() < 0.5 else None,
        )  # fmt: skip
        state = blank()
        task.doing("load")
        with suppress(pccl.NoCheckpointError):
            saver.load({"x": state})
        step = int(state["step"])
        task.say("loaded", step, verdict(state, step, local, journals=False))  # its own is written now
        while True:
            step += 1
            task.fill(state, step)
            task.promise("durable", step)
            task.doing("save of step", step)
            calm(lambda: saver.save(step, {"x": state}))  # noqa: B023 (called at once)
            task.promise("uploaded", step)
            calm(saver.wait)
            task.say("durable", step)
            if task.only_load or dice.random() < 0.6:
                task.doing("upload of step", step)
                calm(lambda: saver.wait(level="remote"))
                task.say("uploaded", step)
            if dice.random() < 0.1:
                task.doing("gc")
                calm(saver.gc)
            if task.only_load:
                break
        task.doing("verify, close")
        for number in saver.steps(level="remote"):
            if not saver.verify(number, level="remote").sound:
                task.say("wrong", f"step {number} of the remote is damaged")
        saver.close()
        if left := left_over(remote) + [str(path) for path in local.rglob("*.part")]:
            task.say("wrong", f"left over: {left}")


def dcp(task: Task) -> None:
    """torch.distributed.checkpoint's own calls through our doors, one folder that is written again and
    again."""
    import torch.distributed.checkpoint as theirs

    from pccl_py.checkpoint.dcp import StorageReader, StorageWriter
    from pccl_py.checkpoint.verify import verify_step

    path = task.root / "last"
    with told(task):
        state = blank()
        if (path / "manifest.json").exists():  # else step -1 is told, and known to be wrong
            task.doing("dcp.load")
            theirs.load(state, storage_reader=StorageReader(path), no_dist=True)
        step = int(state["step"])
        task.say("loaded", step, verdict(state, step))
        while not task.only_load:
            step += 1
            task.fill(state, step)
            task.promise("durable", step)
            task.doing("dcp.save of step", step)
            theirs.save(state, storage_writer=StorageWriter(path, step=step), no_dist=True)
            task.say("durable", step)
            if len(os.listdir(path)) != 2 or not verify_step(path).sound:
                task.say("wrong", f"after step {step}: {os.listdir(path)}")


def convert(task: Task) -> None:
    """import, reshard and export of the command line, one after the other."""
    from .checkpoint_conversions import Conversions

    with told(task):
        Conversions(task).run()


WAYS: dict[str, Callable[[Task], None]] = {"save": save, "upload": upload, "dcp": dcp, "convert": convert}


class told:
    """What this library raises is said; what it should never raise ends the saver."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        from pccl_py import PcclError

        if isinstance(error, PcclError):
            self._task.say("failed", type(error).__name__, error)
        return isinstance(error, PcclError)


def calm(action: Callable[[], object]) -> None:
    """Once more where the URL is said, once, to be that of a killed one whose folder is lost."""
    from pccl_py.errors import BusyError

    with suppress(BusyError):
        action()
        return
    action()


def blank() -> dict[str, Any]:
    import torch

    state: dict[str, Any] = {f"t{index}": torch.zeros(ELEMENTS) for index in range(TENSORS)}
    return state | {"step": -1}


def fill(state: dict[str, Any], step: int) -> None:
    """What the state is at this step."""
    state["step"] = step
    for index in range(TENSORS):
        state[f"t{index}"].fill_(step * 31 + index)


def verdict(state: dict[str, Any], step: int, root: Path | None = None, *, journals: bool = True) -> str:
    if step >= 0:
        for index in range(TENSORS):
            tensor = state[f"t{index}"]
            if not bool((tensor == step * 31 + index).all()):
                return f"t{index} holds {tensor.unique().tolist()[:4]}, not {step * 31 + index}"
    left = [] if root is None else left_over(root)
    left = [name for name in left if journals or "/.upload-" not in name]
    return f"left over: {left}" if left else "right"


def left_over(root: Path) -> list[str]:
    left = [
        str(path)
        for path in root.iterdir()
        if not path.name.startswith(".") and not (path / "manifest.json").exists()
    ]
    return left + [str(path) for path in root.rglob("*.part")]
