"""`python -m pccl_py.bench.ckpt.worker METHOD BYTES THREADS REPEATS FOLDER`: one method in a process of its
own; a line of JSON per save, the last one of the loads."""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from pathlib import Path

import torch

from .. import raw_disk
from .savers import Saver, saver
from .state import Training, state_of, tensors_of

WARM_STEPS = 20
BASE_SECONDS = 1.5
ITERATIONS = 6
DISK_BYTES_PER_S = 2e9
BESIDE_RAW = "ours"  # the method that is compared with what the disk can do


class PeakMemory:
    """The most memory that this process has had beyond what it had at first, looked at often."""

    def __init__(self) -> None:
        self._base = self.peak = _resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.peak = max(self.peak, _resident())

    def extra(self) -> int:
        return max(self.peak, _resident()) - self._base


def _resident() -> int:
    with open("/proc/self/statm") as words:
        return int(words.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def drop_caches(folder: Path) -> None:
    """What is under the folder is read from the disk next time, not from memory."""
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


class RawTurns:
    """A plain O_DIRECT writer and reader of as many bytes, in turns with ours: the speed of many a disk is
    another one a minute later. The first write makes the file, and does not count."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size // 4096 * 4096
        self.writes: list[float] = []
        self.reads: list[float] = []
        raw_disk.write(path, self._size)

    def write(self) -> None:
        self.writes.append(raw_disk.write(self._path, self._size))

    def read(self) -> None:
        raw_disk.forget(self._path)
        self.reads.append(raw_disk.read(self._path))


def base_step(training: Training) -> float:
    """The mean step of the training alone."""
    steps = [training.step() for _ in range(WARM_STEPS)]
    begun, steps = time.perf_counter(), []
    while time.perf_counter() - begun < BASE_SECONDS:
        steps.append(training.step())
    return statistics.fmean(steps)


def main(method: str, size: int, threads: int, repeats: int, folder: Path) -> None:
    torch.set_num_threads(threads)
    model, optimizer = state_of(size)
    training = Training()
    alone = base_step(training)
    memory = PeakMemory()
    total = sum(tensor.nbytes for tensor in tensors_of(model, optimizer).values())
    saves = folder / "saves"
    saves.mkdir()
    ours = saver(method, saves, model, optimizer)
    raw: RawTurns | None = None
    for number in range(repeats + 1):  # the first is printed apart: nothing is warm yet
        base = base_step(training)
        if number == 0:  # what a saver does behind the training when it is made is no base
            base = min(base, alone)
        print(json.dumps(measured_save(ours, training, number, base)), flush=True)
        if raw is not None:
            raw.write()
        elif method == BESIDE_RAW:
            raw = RawTurns(folder / "raw", total)
    each_s, plain_s = iterations(ours, training, repeats + 1, size)
    extra = memory.extra()
    before = {name: tensor.clone() for name, tensor in tensors_of(model, optimizer).items()}
    loads = []
    for _ in range(repeats):
        with torch.no_grad():
            for tensor in tensors_of(model, optimizer).values():
                tensor.zero_()
        drop_caches(folder)
        begun = time.perf_counter()
        ours.load()
        loads.append(time.perf_counter() - begun)
        if raw is not None:
            raw.read()
    after = tensors_of(model, optimizer)
    right = all(torch.equal(after[name], value) for name, value in before.items())
    ours.close()
    print(
        json.dumps(
            {
                "loads": loads,
                "extra_bytes": extra,
                "right": right,
                "bytes": total,
                "each_s": each_s,
                "plain_s": plain_s,
                "raw_writes": [] if raw is None else raw.writes,
                "raw_reads": [] if raw is None else raw.reads,
            }
        )
    )


def iterations(ours: Saver, training: Training, number: int, size: int) -> tuple[float, float]:
    """Seconds of some iterations with a save of each, until the last is durable, and of as many without.
    An iteration is as long as a common disk takes for the state, and ends with a write to it."""
    steps = max(round(size / DISK_BYTES_PER_S / base_step(training)), 1)

    def run(save: bool) -> float:
        begun = time.perf_counter()
        for turn in range(ITERATIONS):
            if save:
                ours.begin(number + turn)
            for _ in range(steps):
                training.step()
            ours.update()
        if save:
            ours.finish()
        return time.perf_counter() - begun

    plain = run(False)
    return run(True), plain


def measured_save(ours: Saver, training: Training, number: int, base: float) -> dict[str, float]:
    """One save beside the training. `lost_s`: the call, and what steps took longer than `base` until it was
    durable."""
    cpu, own = time.process_time(), time.thread_time()
    begun = time.perf_counter()
    ours.begin(number)
    blocked = time.perf_counter() - begun
    blocked_cpu = time.thread_time() - own
    lost, worst, durable = blocked, 0.0, 0.0
    spent = 0.0
    while True:
        if ours.done():
            durable = time.perf_counter() - begun
            break
        mark = time.thread_time()
        took = training.step()
        spent += time.thread_time() - mark
        lost += took - base
        worst = max(worst, took)
    cpu_s = time.process_time() - cpu - spent
    ours.finish()
    durable = ours.durable_s() or durable  # else it is known to a step of the training
    return {
        "blocked_s": blocked,
        "lost_s": lost,
        "durable_s": durable,
        "cpu_s": max(cpu_s, blocked_cpu),
        "worst_step_s": worst,
        "base_step_s": base,
    }


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
