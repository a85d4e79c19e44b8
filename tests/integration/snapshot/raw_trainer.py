"""A trainer without torch: a state of one array whose bytes tell its step, snapshot after snapshot, until it
is killed, or kills itself at a given moment.

usage: raw_trainer RUN BYTES STEP MOMENT      at STEP: begun, copying, copied, completed; or never
"""

from __future__ import annotations

import os
import signal
import sys

import numpy as np

from pccl_py.checkpoint import safetensors_header
from pccl_py.checkpoint.boxes import Box
from pccl_py.checkpoint.manifest import Piece, Shard, Tensor
from pccl_py.checkpoint.rank_record import RankRecord
from pccl_py.snapshot import native
from pccl_py.snapshot.buffers import Buffers
from pccl_py.snapshot.table import Table, encode

BLOCK = 1 << 20


def values(step: int, count: int) -> np.ndarray:
    return (np.arange(count, dtype=np.uint32) * np.uint32(2 * step + 1) >> np.uint32(3)).astype(np.uint8)


def buffers(run: str, trainer: str = "0", **more: float) -> Buffers:
    return Buffers(run, trainer, "host", more.get("orphan_s", 60.0), more.get("timeout_s", 30.0))


def plan_of(count: int) -> safetensors_header.ShardPlan:
    return safetensors_header.plan([("w", "U8", (count,), count)])


def take(held: Buffers, step: int, data: np.ndarray, moment: str = "never") -> None:
    """One snapshot, with this process's death at a moment of it."""
    plan = plan_of(data.size)
    place = held.spare(plan.file_bytes)
    if place is None:
        held.prepare(plan.file_bytes)
        place = held.spare(plan.file_bytes)
    assert place is not None
    keeper, slot, pool = place
    keeper.begin(slot, step)
    die(moment, "begun")
    foreign = [0] if moment == "copying" else []
    regions = [(data.ctypes.data, data.size)]
    job = native.MemoryCapture(pool, plan.header, regions, foreign=foreign, block_bytes=BLOCK)
    job.start()
    if foreign:
        part = job.next_foreign(10.0)
        assert part is not None
        memory = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_uint8 * (part[3] // 2)).from_address(part[2]))
        memory[:] = data[: memory.size]
    die(moment, "copying")
    assert job.wait_staged(30.0)
    die(moment, "copied")
    crc = int.from_bytes(job.region_crcs, "little")
    shard = Shard("shard-00000-of-00001.safetensors", plan.file_bytes, len(plan.header), job.block_crcs)
    piece = Piece(0, plan.offsets["w"], Box((0,), (data.size,)), crc)
    record = RankRecord(0, shard, {"w": Tensor("U8", (data.size,), (piece,))})
    held.complete(slot, step, plan.file_bytes, encode(Table(1, BLOCK, record)))
    die(moment, "completed")


def die(asked: str, here: str) -> None:
    if asked == here:
        os.kill(os.getpid(), signal.SIGKILL)


def main(run: str, count: int, last: int, moment: str) -> None:
    held = buffers(run)
    held.attach()
    step = held.newest_step
    while True:
        step += 1
        take(held, step, values(step, count), moment if step == last else "never")
        print(step, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
