"""Tensors on a GPU travel through host memory: copied there before an operation, and back after its commit.

Copies run on streams of their own, beside the kernels of the current stream; order is kept by events:

    current stream   ...kernels | mark                                        mark | wait, kernels...
    side stream in              | wait, device to host, mark                       |
    host                          post() waits for that mark; operation; wait()    |
    side stream out                                                wait, host to device, mark
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from .cuda_api import CudaApi, Device, DeviceApi, Event, Stream
from .errors import OperationTimeout
from .pinned_pool import PinnedPool, Slab
from .tensors import Operand, Tensor

# What else wants the copy engine (a data loader's batch) gets in between.
CHUNK_BYTES = 16 << 20
_ALIGNMENT = 64  # of tensors in a slab: whole cache lines
_SPIN_S, _NAP_S = 100e-6, 500e-6

logger = logging.getLogger("pccl_py")
Tensors = Tensor | Sequence[Tensor] | None


def on_device(*sides: Tensors) -> bool:
    """Whether any of the tensors is a CUDA tensor. Imports nothing."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    return any(
        isinstance(tensor, torch.Tensor) and tensor.is_cuda for side in sides for tensor in as_tuple(side)
    )


def as_tuple(side: Tensors) -> tuple[Tensor, ...]:
    if side is None:
        return ()
    return tuple(side) if isinstance(side, list | tuple) else (side,)


class Staging:
    """Of one communicator: its side streams, and at most `bytes_max` of page-locked memory."""

    def __init__(self, bytes_max: int, api: DeviceApi | None = None) -> None:
        self.api = api or CudaApi()
        self.pool = PinnedPool(self.api, bytes_max)
        self._lock = threading.Lock()
        self._streams: dict[tuple[Device, str], Stream] = {}
        self._warned = False

    def stage(
        self, items: Sequence[Operand], inputs: Tensors, outputs: Tensors, *, one_copy: bool, seconds: float
    ) -> Staged | None:
        """Returns when the tensors on devices are in host memory; None if there are none.

        inputs, outputs   of the items, in their order; a side that the operation does not have is None
        one_copy  the outputs are the inputs, and so are their copies; else they are apart, which costs as
                  much memory again, and spares the core an undo copy
        seconds   OperationTimeout where earlier kernels of current streams take longer; negative: no limit
        """
        staged = Staged(self, items, as_tuple(inputs), as_tuple(outputs), one_copy)
        if not staged.needed:
            return None
        staged.load(seconds)
        return staged

    def stream(self, device: Device, way: str) -> Stream:
        with self._lock:
            if (device, way) not in self._streams:
                self._streams[device, way] = self.api.side(device)
            return self._streams[device, way]

    def slab(self, size: int) -> Slab:
        slab = self.pool.take(size)
        if not slab.locked and not self._warned:
            self._warned = True
            logger.warning(
                "tensors on GPUs need more page-locked memory than there is for them, and are copied more "
                "slowly: set PCCL_PINNED_MB"
            )
        return slab

    def until_happened(self, events: Sequence[Event], seconds: float, what: str) -> None:
        """Blocks the host. Ctrl-C gets through."""
        begun = time.monotonic()
        for event in events:
            while not self.api.happened(event):
                waited = time.monotonic() - begun
                if 0 <= seconds < waited:
                    raise OperationTimeout(f"the device has not {what} within {seconds:g} s")
                if waited > _SPIN_S:
                    time.sleep(_NAP_S)


class Staged:
    """One operation's tensors on devices, and their copies in host memory. `items`: what the core takes."""

    def __init__(
        self,
        staging: Staging,
        items: Sequence[Operand],
        inputs: tuple[Tensor, ...],
        outputs: tuple[Tensor, ...],
        one_copy: bool,
    ) -> None:
        self.items = list(items)
        self._staging = staging
        self._lock = threading.Lock()  # of the copy back: any thread may wait for the operation
        self._back: dict[Device, Event] | None = None
        self._loads = _Side(staging.api, inputs)
        self._returns = self._loads if one_copy else _Side(staging.api, outputs)
        self.needed = bool(self._loads.tensors or self._returns.tensors)

    def load(self, seconds: float) -> None:
        api, staging = self._staging.api, self._staging
        self._loads.settle_in(staging)
        self._returns.settle_in(staging)
        for i, (source, target, *rest) in enumerate(self.items):
            self.items[i] = Operand(self._loads.address(i, source), self._returns.address(i, target), *rest)
        copied = []
        for device, pairs in self._loads.by_device().items():
            stream = staging.stream(device, "in")
            api.wait(stream, api.mark(api.current(device)))
            for tensor, host in pairs:
                _copy(api, host, tensor, stream)
                api.used_by(tensor, stream)
            copied.append(api.mark(stream))
        staging.until_happened(copied, seconds, "done the work that its tensors wait for")

    def deliver(self) -> None:
        """After the commit: results go to the devices, and the caller's current streams wait for them."""
        api = self._staging.api
        with self._lock:
            if self._back is None:
                self._back = self._copy_back()
                self._free(list(self._back.values()))
        for device, event in self._back.items():
            api.wait(api.current(device), event)

    def synchronize(self, seconds: float) -> None:
        """After deliver(): blocks the host until the results are there."""
        events = list((self._back or {}).values())
        self._staging.until_happened(events, seconds, "got its results back")

    def discard(self) -> None:
        """The operation failed, the core uses none of this any more. Tensors on devices stay as they are."""
        with self._lock:
            if self._back is None:
                self._back = {}
                self._free([])

    def _copy_back(self) -> dict[Device, Event]:
        api, back = self._staging.api, {}
        for device, pairs in self._returns.by_device().items():
            stream = self._staging.stream(device, "out")
            api.wait(stream, api.mark(api.current(device)))  # kernels there may still read what was there
            for tensor, host in pairs:
                _copy(api, tensor, host, stream)
                api.used_by(tensor, stream)
            back[device] = api.mark(stream)
        return back

    def _free(self, events: list[Event]) -> None:
        self._returns.free(self._staging.pool, events)
        self._loads.free(self._staging.pool, [])  # nothing, where the other side is the same


class _Side:
    """The inputs, or the outputs, of one operation: those on devices have a place in a slab on the host."""

    def __init__(self, api: DeviceApi, tensors: tuple[Tensor, ...]) -> None:
        self.tensors = {i: tensor.detach() for i, tensor in enumerate(tensors) if api.holds(tensor)}
        self._hosts: dict[int, Any] = {}
        self._slab: Slab | None = None

    def settle_in(self, staging: Staging) -> None:
        offsets, end = {}, 0
        for i, tensor in self.tensors.items():
            offsets[i] = end
            end += -(-tensor.numel() * tensor.element_size() // _ALIGNMENT) * _ALIGNMENT
        if not self.tensors or self._slab is not None:
            return
        self._slab = staging.slab(end)
        for i, tensor in self.tensors.items():
            size = tensor.numel() * tensor.element_size()
            self._hosts[i] = self._slab.memory[offsets[i] : offsets[i] + size].view(tensor.dtype)

    def address(self, index: int, otherwise: int) -> int:
        return int(self._hosts[index].data_ptr()) if index in self._hosts else otherwise

    def by_device(self) -> dict[Device, list[tuple[Any, Any]]]:
        """Pairs of tensor and host memory, both flat."""
        devices: dict[Device, list[tuple[Any, Any]]] = {}
        for i, tensor in self.tensors.items():
            devices.setdefault(tensor.device, []).append((tensor.view(-1), self._hosts[i]))
        return devices

    def free(self, pool: PinnedPool, events: list[Event]) -> None:
        slab, self._slab = self._slab, None
        self._hosts.clear()
        if slab is not None:
            pool.give(slab, events)


def _copy(api: DeviceApi, to: Any, source: Any, stream: Stream) -> None:
    step = max(1, CHUNK_BYTES // max(1, source.element_size()))
    for first in range(0, source.numel(), step):
        api.copy(to[first : first + step], source[first : first + step], stream)
