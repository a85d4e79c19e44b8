"""A keeper's share of a generation: its snapshots as blocks, and the parities of others' that it holds."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .generation import Area, Generation, Lane
from .holding import FileKey, file_key
from .memory import mapped
from .protection import Memory

Bytes = npt.NDArray[np.uint8]


class Mapped:
    """Buffers of trainers, mapped for reading: kept from one generation to the next. From any thread."""

    def __init__(self) -> None:
        self._views: dict[FileKey, Bytes] = {}
        self._lock = threading.Lock()

    def view(self, memory: Memory) -> Bytes:
        """Takes the descriptor."""
        try:
            key = file_key(memory.fd)
            with self._lock:
                view = self._views.get(key)
            if view is None:
                view = mapped(memory.fd, memory.capacity, to_write=False)
                with self._lock:
                    self._views[key] = view
            return view
        finally:
            os.close(memory.fd)

    def keep_only(self, views: list[Bytes], files: set[FileKey]) -> None:
        """Others give back their memory. `files`: buffers that trainers still have, which come again: mapping
        one for each snapshot would cost as much as to code it."""
        wanted = {id(view) for view in views}
        with self._lock:
            self._views = {
                key: view for key, view in self._views.items() if id(view) in wanted or key in files
            }

    def forget(self, file: FileKey) -> None:
        """A buffer that its trainer gives up: its memory is free at once, unless it is coded now."""
        with self._lock:
            self._views.pop(file, None)


@dataclass(slots=True)
class Share:
    """`data`: by lane, each lane's buffer; `parities`: by lane, rows of one width each, once there is room;
    `tables`: of all trainers of the generation."""

    generation: Generation
    lanes: tuple[Lane, ...]
    data: list[Bytes]
    parities: list[Bytes]
    tables: dict[str, bytes] = field(default_factory=dict)

    def blocks(self, lane: int, k: int, area: Area) -> list[Bytes]:
        """The k blocks of data, of which the last ones may be short or empty, then the parities."""
        if lane < len(self.lanes):
            data = self.data[lane][area.first : min(area.last, self.lanes[lane].bytes)]
        else:
            data = np.empty(0, np.uint8)
        cut = [data[area.width * number : area.width * (number + 1)] for number in range(k)]
        return cut + self.rows(lane, area)

    def rows(self, lane: int, area: Area) -> list[Bytes]:
        """The parities of an area."""
        return [row[area.at : area.at + area.width] for row in self.parities[lane]]
