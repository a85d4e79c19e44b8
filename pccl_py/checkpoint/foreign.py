"""Pieces on a device: copied into the pool's slabs on a stream beside the training's, in the file's order."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from . import native
from .pieces import Piece


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


def copy_foreign(job: native.ShardSave, pieces: Sequence[Piece], moments: DeviceMoments) -> None:
    """Until nothing is left. Slabs come as the disk frees them; a cancelled job has none left."""
    if all(piece.rows.device.type == "cpu" for piece in pieces):
        return
    left = sum(piece.rows.nbytes for piece in pieces if piece.rows.device.type != "cpu")
    while left > 0:
        found = job.next_foreign(1.0)
        if found is None:
            job.wait_staged(0.0)  # raises where the save has ended; else no slab is free yet
            continue
        region, offset, address, count = found
        source = pieces[region].rows.reshape(-1).view(torch.uint8)[offset : offset + count]
        _copy(source, memory_at(address, count), moments)
        job.foreign_done(region, offset)
        left -= count


def _copy(source: Tensor, target: Tensor, moments: DeviceMoments) -> None:
    if source.device.type != "cuda":
        target.copy_(source)
        return
    stream = moments.stream(source.device)
    with torch.cuda.stream(stream):
        target.copy_(source, non_blocking=True)
    stream.synchronize()
