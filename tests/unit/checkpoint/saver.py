"""Saves, retires, recycles and sweeps until it is killed; says on stdout what is durable and what may go.

Every step's tensor follows from its number, so that a reader can tell a right one from a wrong one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from pccl_py.checkpoint import folder
from pccl_py.checkpoint.plain_writer import source_of_array, write_shard
from pccl_py.checkpoint.rank_record import merge
from pccl_py.checkpoint.retention import keepers

WORLD = 2
ELEMENTS = 3000


def values(step: int, rank: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.random.default_rng([step, rank]).standard_normal(ELEMENTS, np.float32)


def save(root: Path, step: int, recycled: list[Path]) -> None:
    """Odd steps draft their manifest, even ones do not."""
    path = folder.begin(root, step)
    records = []
    for rank in range(WORLD):
        if recycled:  # as a faster writer does: an old file gets the new one's temporary name
            os.rename(recycled.pop(), path / f"shard-{rank:05d}-of-{WORLD:05d}.safetensors.part")
        sources = [source_of_array(f"w{rank}", values(step, rank))]
        records.append(write_shard(path, rank, WORLD, sources, 4096))
    made = merge(records, step=step, time=0.0, world=WORLD, block_bytes=4096)
    if step % 2:
        folder.draft(path, made)
    folder.commit(path, made, drafted=bool(step % 2))


def main(root: Path) -> None:
    with folder.hold(root):
        folder.sweep(root)
        assert not folder.scan(root).leftovers
        latest = folder.scan(root).latest
        step = latest.step if latest else 0
        recycled: list[Path] = []
        while True:
            step += 1
            save(root, step, recycled)
            print(step, flush=True)
            complete = [found.step for found in folder.scan(root).steps if found.complete]
            for old in sorted(set(complete) - keepers(complete, keep=2, keep_every=10)):
                recycled += folder.retire(folder.step_path(root, old))
            if step % 3 == 0:
                recycled.clear()
                folder.sweep(root)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
