"""Pieces on a device: copied into the pool's slabs on a stream beside the training's, in the file's order."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import CheckpointError
from . import native
from .pieces import Piece

logger = logging.getLogger("pccl_py")


def memory_at(address: int, count: int) -> Tensor:
    """Bytes of a slab as a tensor; the slab stays the pool's."""
    return torch.frombuffer((ctypes.c_char * count).from_address(address), dtype=torch.uint8)


class DeviceMoments:
    """The moment of a save on each device that it reads: the side streams wait for it, not for later work."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._events: dict[torch.device, torch.cuda.Event] = {}
        for device in {piece.rows.device for piece in pieces if piece.rows.device.type == "cuda"}:
            self._events[device] = torch.cuda.current_stream(device).record_event()
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def stream(self, device: torch.device) -> torch.cuda.Stream:
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._streams[device].wait_event(self._events[device])
        return self._streams[device]


def foreign(pieces: Sequence[Piece]) -> list[int]:
    """Those that the core cannot read: on a device."""
    return [index for index, piece in enumerate(pieces) if piece.rows.device.type != "cpu"]


class ForeignCopier:
    """A thread that copies what is on devices, of one save. Slabs come as the disk frees them, so it is never
    the thread that waits at the fence; a save that has ended gives none any more."""

    def __init__(self, job: native.CaptureJob, pieces: Sequence[Piece], which: Sequence[int]) -> None:
        self._job, self._pieces = job, pieces
        self._left = sum(pieces[index].rows.nbytes for index in which)
        self._moments = DeviceMoments(pieces)
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="pccl-devices", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """A device that does not answer keeps its tensors, and nobody else."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            logger.error("the thread pccl-devices still copies from a device after %g s", timeout_s)
        else:
            self._pieces = ()

    def raise_fault(self) -> None:
        if self._fault is not None:
            raise CheckpointError(f"a device's memory could not be copied: {self._fault}") from self._fault

    def _work(self) -> None:
        try:
            self._copy_all()
        except Exception as error:  # told by raise_fault
            self._fault = error
            self._job.cancel()

    def _copy_all(self) -> None:
        while self._left > 0:
            found = self._job.next_foreign(1.0)
            if found is None:
                self._job.wait_staged(0.0)  # raises where the save has ended; else no slab is free yet
                continue
            region, offset, address, count = found
            source = self._pieces[region].rows.reshape(-1).view(torch.uint8)[offset : offset + count]
            try:
                _copy(source, memory_at(address, count), self._moments)
            except Exception as error:
                self._fault = error  # before all may seem to be copied
                raise
            finally:
                self._job.foreign_done(region, offset)  # also after a fault: the slab is not used before
            self._left -= count


def _copy(source: Tensor, target: Tensor, moments: DeviceMoments) -> None:
    if source.device.type != "cuda":
        target.copy_(source)
        return
    stream = moments.stream(source.device)
    with torch.cuda.stream(stream):
        target.copy_(source, non_blocking=True)
    stream.synchronize()


def lock_pages(address: int, count: int) -> bool:
    """Devices copy to this memory by themselves from now on; False: not here, copies are only slower."""
    if not torch.cuda.is_available():
        return False
    return int(torch.cuda.cudart().cudaHostRegister(address, count, 0)) == 0  # type: ignore[no-untyped-call]


def unlock_pages(address: int) -> None:
    torch.cuda.cudart().cudaHostUnregister(address)  # type: ignore[no-untyped-call]
