"""Numbers of a run that travel as elements of a shared tensor: read and set like attributes."""

from __future__ import annotations

from typing import Any


class Counter:
    """`steps = Counter(0)`: element 0 of the owner's `counters`, an int64 array or tensor."""

    def __init__(self, place: int) -> None:
        self._place = place

    def __get__(self, owner: Any, kind: type | None = None) -> int:
        return int(owner.counters[self._place])

    def __set__(self, owner: Any, value: int) -> None:
        owner.counters[self._place] = value
