"""`bench reshard`: how fast a checkpoint loads into another number of ranks, against one into the ranks that
saved it. Ranks are processes of this machine with torch's gloo and DTensors that are sharded by rows; files
leave the page cache before each load.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .plot import Bar
from .report import titles
from .units import bytes_text

PAIRS = ((4, 2), (2, 4), (1, 3))
TENSORS = 24
COLUMNS = 1024
LIMIT_S = 240.0
GOAL = 0.7
HEAD = titles("saved_by:8 loaded_by:9 state:8 load_s:7 GB/s:5 plain_s:8 ratio:6")


@dataclass(frozen=True, slots=True)
class Resharded:
    """`saved` ranks wrote it, `loaded` ranks read it; seconds are medians over repetitions, `ratio` is that
    of speeds: 1.0 where another layout costs nothing."""

    saved: int
    loaded: int
    bytes: int
    load_s: float
    plain_s: float
    ratio: float
    right: bool = True  # a rank that loads another value fails, and the bench with it

    def record(self) -> dict[str, Any]:
        return {"bench": "reshard", **asdict(self), "goal": GOAL, "reached": self.ratio >= GOAL}

    def head(self) -> str:
        return HEAD

    def line(self) -> str:
        return (
            f"{self.saved:8} {self.loaded:9} {bytes_text(self.bytes):>8} {self.load_s:7.3f} "
            f"{self.bytes / self.load_s / 1e9:5.2f} {self.plain_s:8.3f} {self.ratio:6.2f}"
        )

    def bar(self) -> Bar:
        values = {"plain": self.plain_s, "from another number": self.load_s}
        return Bar(f"{self.saved} -> {self.loaded} ranks", values, "s")


def measure(
    sizes: Sequence[int], repeats: int, root: str | None, pairs: Sequence[tuple[int, int]] = PAIRS
) -> Iterator[Resharded]:
    """Each pair (saved by, loaded by), against the same load of what as many ranks have saved. Everything is
    written below `root` (None: where temporary files go) and removed at the end. Raises RuntimeError.

    sizes   bytes of float32 in the state
    """
    for size in sizes:
        folder = Path(tempfile.mkdtemp(prefix="reshard-", dir=root))
        try:
            for ranks in sorted({count for pair in pairs for count in pair}):
                _together(ranks, _save, str(folder / f"by{ranks}"), size)
            for saved, loaded in pairs:
                yield _compared(folder, saved, loaded, size, repeats)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _compared(folder: Path, saved: int, loaded: int, size: int, repeats: int) -> Resharded:
    times: dict[int, list[float]] = {saved: [], loaded: []}
    for _ in range(repeats):  # in turns, so that both meet the same machine
        for source in (loaded, saved):
            times[source].append(max(_together(loaded, _load, str(folder / f"by{source}"), size)))
    load_s, plain_s = statistics.median(times[saved]), statistics.median(times[loaded])
    return Resharded(saved, loaded, size, load_s, plain_s, plain_s / load_s)


def _together(ranks: int, play: Any, root: str, size: int) -> list[float]:
    """Seconds by rank. Raises RuntimeError where a rank fails."""
    context = multiprocessing.get_context("fork")  # torch is imported once
    import torch

    torch.set_num_threads(1)
    import torch.distributed.tensor

    with tempfile.TemporaryDirectory() as meeting:
        queue = context.SimpleQueue()
        members = [
            context.Process(target=_member, args=(play, rank, ranks, meeting, root, size, queue), daemon=True)
            for rank in range(ranks)
        ]
        for member in members:
            member.start()
        until = time.monotonic() + LIMIT_S
        for member in members:
            member.join(max(0.1, until - time.monotonic()))
        if any(member.exitcode != 0 for member in members):
            for member in members:
                member.kill()
            raise RuntimeError(
                f"{play.__name__} with {ranks} ranks: {[member.exitcode for member in members]}"
            )
        return [queue.get() for _ in members]


def _member(play: Any, rank: int, ranks: int, meeting: str, root: str, size: int, queue: Any) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{meeting}/store", rank=rank, world_size=ranks)
    try:
        queue.put(play(ranks, root, size))
    finally:
        dist.barrier()
        dist.destroy_process_group()


def _tensors(ranks: int, size: int, value: float | None) -> dict[str, Any]:
    """float32 [rows, 1024], sharded by rows; each row of tensor i is value + i + its number."""
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (ranks,))
    rows = max(1, size // (4 * COLUMNS * TENSORS))
    made = {}
    for index in range(TENSORS):
        whole = torch.zeros(rows, COLUMNS)
        if value is not None:
            whole += torch.arange(rows)[:, None] + value + index
        made[f"t{index}"] = distribute_tensor(whole, mesh, [Shard(0)], src_data_rank=None)
    return made


def _save(ranks: int, root: str, size: int) -> float:
    from ..checkpoint.checkpointer import Checkpointer

    begun = time.perf_counter()
    with Checkpointer(root) as saver:
        saver.save(1, {"state": _tensors(ranks, size, 0.5)})
    return time.perf_counter() - begun


def _load(ranks: int, root: str, size: int) -> float:
    import torch
    import torch.distributed as dist

    from ..checkpoint.checkpointer import Checkpointer

    state = _tensors(ranks, size, None)
    for tensor in state.values():
        tensor._local_tensor.zero_()  # its pages are there
    with Checkpointer(root) as saver:
        if dist.get_rank() == 0:
            _forget(Path(root))
        dist.barrier()
        begun = time.perf_counter()
        saver.load({"state": state})
        dist.barrier()
        seconds = time.perf_counter() - begun
    wanted = _tensors(ranks, size, 0.5)
    assert all(torch.equal(state[name]._local_tensor, wanted[name]._local_tensor) for name in wanted)
    return seconds


def _forget(root: Path) -> None:
    for path in root.glob("step-*/*"):
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
