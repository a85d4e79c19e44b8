"""What torch holds while an operation runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch

from .completion import watch
from .pending import Pending
from .torch_names import Work


def seconds_of(limit: timedelta | float | None) -> float | None:
    """torch's "unset" is -1 ms and "no limit of its own" 0: both are None."""
    if limit is None:
        return None
    seconds = limit.total_seconds() if isinstance(limit, timedelta) else float(limit)
    return seconds if seconds > 0 else None


class PcclWork(Work):  # type: ignore[misc]
    """One operation, or several begun together. Its future raises what the operation did: through a function
    on it, because torch's own way to put an exception into a future ends the process in DDP's backward."""

    def __init__(self, parts: Sequence[Pending]) -> None:
        super().__init__()
        self._parts = tuple(parts)
        self._future: torch.futures.Future[Any] | None = None

    def wait(self, timeout: timedelta | float | None = None) -> bool:
        """Raises an error that is a RuntimeError and one of pccl_py's. `timeout` for this wait only."""
        seconds = seconds_of(timeout)
        for part in self._parts:
            part.wait(seconds)
        return True

    def is_completed(self) -> bool:
        return all(part.done() for part in self._parts)

    def is_success(self) -> bool:
        return self.is_completed() and self.exception() is None

    def exception(self) -> Exception | None:
        return next((error for part in self._parts if (error := part.error()) is not None), None)

    def result(self) -> list[torch.Tensor]:
        self.wait()
        return [tensor for part in self._parts for tensor in part.outputs]

    def synchronize(self) -> None:
        self.wait()

    def block_current_stream(self) -> None:
        self.wait()

    def source_rank(self) -> int:
        """Of a message, once it is there: the rank in the group that it came from."""
        return int(getattr(self._parts[0], "source", -1)) if self._parts else -1

    _source_rank = source_rank

    def get_future(self) -> torch.futures.Future[Any]:
        """Of the outputs, once they are there."""
        if self._future is None:
            outputs = [tensor for part in self._parts for tensor in part.outputs]
            devices: list[Any] = list({tensor.device for tensor in outputs if tensor.is_cuda})
            base: torch.futures.Future[Any] = torch.futures.Future(devices=devices)
            self._future = base.then(lambda _: self.result())
            _when_all_have_ended(list(self._parts), base)
        return self._future

    getFuture = get_future

    def get_future_result(self) -> torch.futures.Future[Any]:
        return self.get_future()


def _when_all_have_ended(parts: list[Pending], base: torch.futures.Future[Any]) -> None:
    while parts and parts[-1].done():
        parts.pop()
    if parts:
        watch(parts[-1].work, lambda: _when_all_have_ended(parts, base))
    else:
        base.set_result(None)
