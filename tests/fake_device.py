"""A device whose memory is the host's, and whose streams run late: in any order that events leave open.

`FakeApi(seed)` stands for CudaApi. What a stream is given waits in its queue; one step of one stream is done
each time somebody asks whether an event has happened, which stream is drawn by lot. So whoever forgets to
wait for an event reads memory that is not written yet, with values that tests see.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch


class FakeEvent:
    def __init__(self, name: str) -> None:
        self.name = name
        self.happened = False


class FakeStream:
    def __init__(self, name: str) -> None:
        self.name = name
        self.queue: list[tuple[str, Any]] = []

    def blocked(self) -> bool:
        return not self.queue or (self.queue[0][0] == "wait" and not self.queue[0][1].happened)


class FakeApi:
    """`log`: what streams were given, in the order of the host. `on_device()` makes tensors of the device."""

    def __init__(self, seed: int = 0) -> None:
        self.log: list[str] = []
        self.locked: list[int] = []  # sizes of page-locked memory, as it was asked for
        self.unlocked: list[int] = []
        self.released = 0
        self._random = random.Random(seed)
        self._held: list[torch.Tensor] = []
        self._events = 0
        self._streams = [FakeStream("main")]
        self._current = self._streams[0]

    def on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        self._held.append(tensor)
        return tensor

    def kernel(self, what: Callable[[], object]) -> None:
        """On the current stream."""
        self.log.append(f"{self._current.name}: kernel")
        self._current.queue.append(("do", what))

    def use(self, stream: FakeStream | None = None) -> FakeStream:
        """Makes a stream the current one; None: a new one."""
        self._current = stream or self.side("cuda:0")
        return self._current

    def step(self) -> bool:
        """One thing of one stream that can go on. False: there is none."""
        ready = [stream for stream in self._streams if not stream.blocked()]
        if not ready:
            return False
        kind, what = self._random.choice(ready).queue.pop(0)
        if kind == "mark":
            what.happened = True
        elif kind == "do":
            what()
        return True

    def synchronize(self) -> None:
        """Until all streams have done everything."""
        while self.step():
            pass
        assert not any(stream.queue for stream in self._streams), "streams wait for each other"

    # What CudaApi has.

    def holds(self, tensor: Any) -> bool:
        return any(tensor is held for held in self._held)

    def current(self, device: Any) -> FakeStream:
        return self._current

    def side(self, device: Any) -> FakeStream:
        self._streams.append(FakeStream(f"side{len(self._streams)}"))
        return self._streams[-1]

    def mark(self, stream: FakeStream) -> FakeEvent:
        self._events += 1
        event = FakeEvent(f"event{self._events}")
        self.log.append(f"{stream.name}: mark {event.name}")
        stream.queue.append(("mark", event))
        return event

    def wait(self, stream: FakeStream, event: FakeEvent) -> None:
        self.log.append(f"{stream.name}: wait {event.name}")
        stream.queue.append(("wait", event))

    def happened(self, event: FakeEvent) -> bool:
        if not event.happened:
            self.step()
        return event.happened

    def copy(self, to: torch.Tensor, source: torch.Tensor, stream: FakeStream) -> None:
        self.log.append(f"{stream.name}: copy {to.numel() * to.element_size()}")
        stream.queue.append(("do", lambda: to.copy_(source)))

    def used_by(self, tensor: torch.Tensor, stream: FakeStream) -> None:
        self.log.append(f"{stream.name}: uses {tensor.numel() * tensor.element_size()}")

    def page_locked(self, size: int) -> torch.Tensor:
        self.locked.append(size)
        return torch.full((size,), 0xDB, dtype=torch.uint8)

    def pageable(self, size: int) -> torch.Tensor:
        self.unlocked.append(size)
        return torch.full((size,), 0xDB, dtype=torch.uint8)

    def forget_page_locked(self) -> None:
        self.released += 1
