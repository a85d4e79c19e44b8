"""Which of memory and disk ranks go on from: the same for all, whatever each of them has."""

from __future__ import annotations

import threading
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

from pccl_py.errors import CheckpointError, NoSnapshotError
from pccl_py.snapshot.restoring import Restoring
from pccl_py.snapshot.several import uncovered
from pccl_py.snapshot.snapshots import Snapshots
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


def table(rank: int, world: int) -> Any:
    return SimpleNamespace(world=world, record=SimpleNamespace(rank=rank))


def test_a_snapshot_of_more_ranks_than_there_are_tables_of() -> None:
    """Two of four went on, and were killed when one alone had a newer one: no error, but no snapshot."""
    assert uncovered([table(0, 4), table(1, 4)]) == ["ranks [2, 3] of the 4 that took it are not in memory"]
    assert uncovered([table(1, 2), table(0, 2)]) == []


def test_what_was_of_other_ranks_stays_until_all_have_something_newer() -> None:
    one = Restoring(Buffers(()), None, None, 10.0, 10.0, False)  # type: ignore[arg-type]
    freed: list[bool] = []
    one._strangers.append(SimpleNamespace(close=lambda free: freed.append(free)))  # type: ignore[arg-type]
    one.taken()
    assert not freed, "another rank may be behind"
    one.taken()
    assert freed == [True]


def test_names_are_asked_for_once() -> None:
    """Who waited in vain once would wait at each snapshot, while the others have heard it."""
    asked: list[str] = []

    def exchange(key: str, words: bytes, timeout_s: float) -> list[bytes]:
        asked.append(key)
        raise CheckpointError("rank 1 does not answer")

    one: Any = object.__new__(Snapshots)
    one._trainers, one._timeout_s = None, 10.0
    one._buffers, one._coordination = SimpleNamespace(trainer="0"), SimpleNamespace(exchange=exchange)
    assert one._names() == () and one._names() == ()
    assert len(asked) == 1


def test_a_keeper_is_not_replaced_while_a_take_has_its_buffers() -> None:
    """A flush would read the next one's buffer, and write it to the disk under this step."""
    replaced: list[bool] = []
    one: Any = object.__new__(Snapshots)
    one._preparing, one._count = threading.Lock(), 0
    one._buffers = SimpleNamespace(is_lost=lambda: True, reattach=lambda: replaced.append(True))
    with one._preparing:
        assert one._look_after_keeper()
    assert not replaced
    assert one._look_after_keeper() and replaced == [True]
