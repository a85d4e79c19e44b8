"""Which of memory and disk ranks go on from: the same for all, whatever each of them has."""

from __future__ import annotations

import threading
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

from pccl_py.errors import NoSnapshotError
from pccl_py.snapshot.restoring import Restoring
from tests.threads import in_threads


class Table:
    """Where all ranks lay down what they say."""

    def __init__(self, size: int) -> None:
        self.said: list[bytes] = [b""] * size
        self.barrier = threading.Barrier(size, timeout=10)

    def of(self, rank: int) -> Any:
        def exchange(key: str, words: bytes, timeout_s: float) -> list[bytes]:
            self.said[rank] = words
            self.barrier.wait()
            found = list(self.said)
            self.barrier.wait()
            return found

        return SimpleNamespace(exchange=exchange)


class Buffers:
    def __init__(self, steps: tuple[int, ...]) -> None:
        self.kept = [SimpleNamespace(step=step) for step in steps]

    def attach(self, *, start: bool) -> None:
        if not self.kept:
            raise NoSnapshotError("nothing is here")


@pytest.mark.parametrize(
    ("held", "durable", "older"),
    [
        (((20, 10), (10,)), (15, 15), True),  # step 10 is what both could go on from
        (((20, 10), (20,)), (15, 15), False),
        (((20,), (10,)), (15, 15), False),  # nothing in common: restore() will say so
        (((10,), (10,)), (15, None), True),  # the second host is new
        (((10,), ()), (15, 15), True),  # fewer took it
        (((), ()), (15, 15), False),
        (((10,), (10,)), (None, None), False),
    ],
)
def test_ranks_answer_alike(
    held: tuple[tuple[int, ...], ...], durable: tuple[int | None, ...], older: bool
) -> None:
    table = Table(2)
    ranks: list[Any] = [
        Restoring(Buffers(held[rank]), table.of(rank), None, 10.0, 10.0, False)  # type: ignore[arg-type]
        for rank in range(2)
    ]
    answers = in_threads([partial(ranks[rank].is_older_than, durable[rank]) for rank in range(2)], 20)
    assert answers == [older, older]
