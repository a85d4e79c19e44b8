"""A trainer of `stress snapshots`, until it is killed: its state is known bits of its number and its step,
beside some that all have alike, and some of its own that change in one step of four. Each step is a snapshot,
and what it finds after a start must be one of them.

    attached                            its Snapshots are there, and it asks for what was taken before
    restored  step, text                empty text: every bit is right
    gone      text                      there is nothing to be restored, and why
    taking    step                      from here on take() writes
    complete  step, coded, losses, fault, unchanged, s     the keeper has it; what status() says
    failed    text                      what a call raised that should have gone well
"""

from __future__ import annotations

import signal
import time

import torch

import pccl_py as pccl
from pccl_py.joined_with import JoinedWith
from pccl_py.snapshot import launch

from .records import Writer
from .snapshot_place import RUN, Task

SELDOM = 1000  # beside the numbers of places


class _Joined:
    """What Snapshots wants to know of a Communicator: trainers of this soak need none."""

    def __init__(self, master: str) -> None:
        self.joined_with = JoinedWith(master, None, False, False, "", None, None)
        self.run_name = RUN


def frozen(elements: int) -> torch.Tensor:
    """The same at all places and steps: it is not coded."""
    return torch.arange(elements, dtype=torch.int32).mul_(2654435).bitwise_xor_(0x5A5A5A5A)


def fill(tensor: torch.Tensor, place: int, step: int) -> None:
    torch.arange(tensor.numel(), dtype=torch.int32, out=tensor)
    tensor.mul_(2 * step + 1).add_(7919 * place)


def train(task: Task, writer: Writer) -> None:
    torch.set_num_threads(1)
    launch.MODULE = "stress.snapshot_keeper"
    name = str(task.place)
    keep = pccl.Snapshots(
        _Joined(task.master), parity=task.parity, run=RUN, trainer=f"t{name}", keeper=f"k{name}",
        domain=f"d{name}", code_s=task.code_s, timeout_s=4 * task.code_s, orphan_s=120,
    )  # fmt: skip
    tensor, seldom = (torch.zeros(task.elements, dtype=torch.int32) for _ in range(2))
    alike = frozen(task.elements)
    state = pccl.TrainState(rng=False, w={"w": tensor, "seldom": seldom, "frozen": alike})
    over = _asked_to_end()
    writer.say("attached")
    alike.zero_()
    step = _restored(task, writer, keep, state, (tensor, seldom, alike))
    while not over:
        step += 1
        fill(tensor, task.place, step)
        fill(seldom, SELDOM + task.place, step - step % 4)
        if task.sabotage == "value":
            tensor[task.elements // 2] += 1
        _take(writer, keep, state, step)
        time.sleep(task.pace_s)
    keep.close(free=True)


def _asked_to_end() -> list[int]:
    """Not empty once SIGTERM has come."""
    over: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: over.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return over


def _restored(
    task: Task,
    writer: Writer,
    keep: pccl.Snapshots,
    state: pccl.TrainState,
    parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> int:
    tensor, seldom, alike = parts
    begun = time.monotonic()
    try:
        step = keep.restore(state).step
    except pccl.NoSnapshotError as error:
        writer.say("gone", text=str(error)[:1500])
        alike.copy_(frozen(task.elements))
        return task.first
    assert step is not None
    wrong = int((frozen(task.elements) != alike).sum())
    wanted = torch.empty_like(tensor)
    for found, place, at in ((tensor, task.place, step), (seldom, SELDOM + task.place, step - step % 4)):
        fill(wanted, place, at)
        wrong += int((wanted != found).sum())
    text = f"{wrong} of {3 * tensor.numel()} elements are wrong" if wrong else ""
    writer.say("restored", step=step, text=text, s=time.monotonic() - begun)
    return step


def _take(writer: Writer, keep: pccl.Snapshots, state: pccl.TrainState, step: int) -> None:
    begun = time.monotonic()
    writer.say("taking", step=step)
    try:
        keep.take(step, state)
        keep.wait()
    except pccl.PcclError as error:
        writer.say("failed", text=f"step {step}: {type(error).__name__}: {error}"[:1500])
        return
    told = keep.status()
    writer.say("complete", step=told.step, coded=told.coded, losses=told.losses, fault=told.fault,
               unchanged=told.unchanged, s=time.monotonic() - begun)  # fmt: skip
