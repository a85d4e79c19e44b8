"""A shard file that lies in memory already, as a snapshot does, and is written to the disk from there: one
copy serves both. To the thread that commits it is what a save of its own is."""

from __future__ import annotations

import mmap
import os
import threading
from typing import NamedTuple

import numpy as np

from ..errors import CheckpointError
from . import native
from .files import PART, explained

PART_BYTES = 16 << 20


class Receipt(NamedTuple):
    file_bytes: int
    direct: bool


class MemorySave:
    """The first `count` bytes of the memfd `fd`, which is mapped here once more: whoever captures them calls
    `captured`, and writes other bytes there after `wait_free` alone."""

    waited_s = 0.0  # at the fence: that is for who captures

    def __init__(
        self, capture: native.MemoryCapture, fd: int, count: int, disk: native.Disk, path: str, recycle: str,
        threads: int, timeout_s: float,
    ) -> None:  # fmt: skip
        self._capture, self._count, self._disk = capture, count, disk
        self._path, self._recycle, self._threads, self._timeout_s = path, recycle, threads, timeout_s
        whole = -(-count // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = np.frombuffer(mmap.mmap(fd, whole, mmap.MAP_SHARED, mmap.PROT_READ), np.uint8)
        self._told, self._written, self._free = threading.Event(), threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._fault: CheckpointError | None = None
        self._receipt: Receipt | None = None
        self._thread: threading.Thread | None = None

    # --- Of whoever captures.

    def captured(self, error: CheckpointError | None = None) -> None:
        """All bytes are there, and begin to be written; or they will not come."""
        if error is not None:
            self.fail(error)
            return
        with self._lock:
            if self._fault is None and self._thread is None:
                self._thread = threading.Thread(target=self._write, name="pccl-flush", daemon=True)
                self._thread.start()
        self._told.set()

    def wait_free(self, timeout_s: float) -> bool:
        return self._free.wait(timeout_s)

    # --- Of the thread that commits, as StagedSave and ShardSave.

    def staged(self) -> None:
        if not self._told.wait(self._timeout_s):
            self.fail(CheckpointError(f"the snapshot was not complete within {self._timeout_s:g} s"))
        if self._fault is not None:
            raise self._fault

    def fail(self, error: CheckpointError) -> None:
        """The first one counts."""
        with self._lock:
            self._fault = self._fault or error
            if self._thread is None:  # else the disk still reads
                self._free.set()
        self._told.set()

    def sums(self) -> tuple[bytes, bytes]:
        return self._capture.block_crcs, self._capture.region_crcs

    def progress(self) -> tuple[int, int, int]:
        copied = self._count if self._told.is_set() else 0
        return copied, self._count if self._written.is_set() else 0, self._count

    def wait_durable(self, timeout_s: float) -> Receipt | None:
        """None: the time was over."""
        if not self._written.wait(timeout_s):
            return None
        if self._receipt is None:
            raise self._fault or CheckpointError(f"{self._path} was not written")
        return self._receipt

    def end(self) -> None:
        """Waits for the disk, whatever that takes."""
        if self._thread is not None:
            self._thread.join()

    def _write(self) -> None:
        try:
            self._receipt = self._durable()
        except BaseException as error:
            known = isinstance(error, CheckpointError)
            with self._lock:
                self._fault = error if known else CheckpointError(f"{self._path}: {error}")  # type: ignore[assignment]
        finally:
            self._free.set()
            self._written.set()

    def _durable(self) -> Receipt:
        draft = f"{self._path}{PART}"
        writer = native.ShardWriter(
            self._disk, draft, self._count, recycle=self._recycle, threads=self._threads
        )
        address = self._memory.ctypes.data
        for at in range(0, self._count, PART_BYTES):
            writer.write(at, address + at, min(PART_BYTES, self._count - at))
        writer.finish()
        with explained(f"rename {draft}"):
            os.rename(draft, self._path)
        return Receipt(self._count, writer.direct)
