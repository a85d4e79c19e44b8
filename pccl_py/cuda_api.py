"""What staging needs of torch.cuda, and nothing else of it: streams, events, copies, page-locked memory."""

from __future__ import annotations

from typing import Any, Protocol

from .errors import UsageError

Stream = Any
Event = Any
Device = Any


class DeviceApi(Protocol):
    """Of CudaApi, and of the fake that tests have. Streams run what they are given in order, side by side."""

    def holds(self, tensor: Any) -> bool:
        """Whether the tensor's memory is a device's."""

    def current(self, device: Device) -> Stream:
        """The stream that the calling thread's kernels go to."""

    def side(self, device: Device) -> Stream:
        """A new stream."""

    def mark(self, stream: Stream) -> Event:
        """An event that happens when the stream has done all that it was given so far."""

    def wait(self, stream: Stream, event: Event) -> None:
        """What the stream is given from here on comes after the event. The host goes on at once."""

    def happened(self, event: Event) -> bool: ...

    def copy(self, to: Any, source: Any, stream: Stream) -> None:
        """On the stream, where one side is page-locked; else it may block the host, and is as ordered."""

    def used_by(self, tensor: Any, stream: Stream) -> None:
        """The tensor's memory is given to nobody else before the stream has done what it was given so far."""

    def page_locked(self, size: int) -> Any:
        """A uint8 tensor in host memory that devices copy from and to by themselves."""

    def pageable(self, size: int) -> Any:
        """A uint8 tensor in host memory of any kind."""

    def forget_page_locked(self) -> None:
        """Memory of page_locked() that nobody holds goes back to the system, as far as that is possible."""


class CudaApi:
    """torch.cuda. Made only where a CUDA tensor exists, so that torch is imported already."""

    def __init__(self) -> None:
        import torch

        if not torch.cuda.is_available():
            raise UsageError(
                f"a tensor is on a CUDA device, and torch {torch.__version__} sees none (it was built "
                "without CUDA, or no device is visible): pass tensor.cpu()"
            )
        self._torch = torch

    def holds(self, tensor: Any) -> bool:
        return isinstance(tensor, self._torch.Tensor) and tensor.is_cuda

    def current(self, device: Device) -> Stream:
        return self._torch.cuda.current_stream(device)

    def side(self, device: Device) -> Stream:
        return self._torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def mark(self, stream: Stream) -> Event:
        return stream.record_event()

    def wait(self, stream: Stream, event: Event) -> None:
        stream.wait_event(event)

    def happened(self, event: Event) -> bool:
        return bool(event.query())

    def copy(self, to: Any, source: Any, stream: Stream) -> None:
        with self._torch.cuda.stream(stream):
            to.copy_(source, non_blocking=True)

    def used_by(self, tensor: Any, stream: Stream) -> None:
        tensor.record_stream(stream)

    def page_locked(self, size: int) -> Any:
        return self._torch.empty(size, dtype=self._torch.uint8, pin_memory=True)

    def pageable(self, size: int) -> Any:
        return self._torch.empty(size, dtype=self._torch.uint8)

    def forget_page_locked(self) -> None:
        # torch keeps such memory for itself, by size; private, and not in every version.
        release = getattr(self._torch._C, "_host_emptyCache", None)
        if release is not None:
            release()
