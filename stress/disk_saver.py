"""A process that saves checkpoints on a disk that fills up; troubles/disk.py judges what it says."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from .checkpoint_savers import KEEP, blank, fill, verdict
from .records import Writer

PAUSE_S = 0.05  # of its training, between two steps
POOL_BYTES = 32 << 20


def run_saver(root: Path, out: Writer, sabotage: str | None) -> None:
    """Loads the newest step and says whether it is right; then saves one step after the other.

    loaded   step, verdict     -1: there was none
    durable  step              it is on the disk
    unsaved  step, text        a save failed, and this is what it said
    """
    import pccl_py as pccl

    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    saver = pccl.Checkpointer(root, keep=KEEP, process_group="alone", pool_bytes=POOL_BYTES)
    state = blank()
    with suppress(pccl.NoCheckpointError):
        saver.load({"x": state})
    step = int(state["step"])
    out.say("loaded", step=step, verdict=verdict(state, step))
    while True:
        time.sleep(PAUSE_S)
        step += 1
        fill(state, step)
        _save(saver, step, state, out, sabotage)


def _save(saver: Any, step: int, state: dict[str, Any], out: Writer, sabotage: str | None) -> None:
    import pccl_py as pccl

    try:
        saver.save(step, {"x": state})
        if sabotage == "lie":
            out.say("durable", step=step)  # nobody waited
        saver.wait()
    except pccl.CheckpointError as error:
        if sabotage != "silent":
            out.say("unsaved", step=step, text=f"{type(error).__name__}: {error}"[:600])
    else:
        out.say("durable", step=saver.latest())
