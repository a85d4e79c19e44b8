"""Which of memory and disk ranks go on from: the same for all, whatever each of them has."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from pccl_py.checkpoint.targets import Fit
from pccl_py.errors import CheckpointError, NoSnapshotError, SnapshotError, StateError
from pccl_py.snapshot.keeper_client import KeeperLost
from pccl_py.snapshot.restore import Restore
from pccl_py.snapshot.restoring import Restoring
from pccl_py.snapshot.several import uncovered
from pccl_py.snapshot.snapshots import Snapshots
from pccl_py.state.boxed import World
from pccl_py.state.train_state import TrainState
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

        return SimpleNamespace(exchange=exchange, world=World(rank, len(self.said), (rank,)))


class Buffers:
    run = trainer = "0"

    def __init__(self, steps: tuple[int, ...], fault: Exception | None = None) -> None:
        self.kept = [SimpleNamespace(step=step) for step in steps]
        self._fault = fault

    def attach(self, *, start: bool) -> None:
        if self._fault is not None:
            raise self._fault
        if not self.kept:
            raise NoSnapshotError("nothing is here")

    def beside(self, trainer: str) -> Any:
        return self


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


@pytest.mark.parametrize("fault", [OSError("no descriptors"), KeeperLost("the keeper is gone")])
def test_what_happens_to_one_rank_is_told_to_the_others_at_once(fault: Exception) -> None:
    """They waited `timeout_s` for it."""
    table = Table(2)
    held = (Buffers(()), Buffers((), fault))
    ranks: list[Any] = [
        Restoring(held[rank], table.of(rank), None, 10.0, 10.0, False)  # type: ignore[arg-type]
        for rank in range(2)
    ]

    def caught(act: Callable[[], object]) -> Exception:
        with pytest.raises(Exception) as found:
            act()
        return found.value

    first, second = in_threads([partial(caught, partial(one.is_older_than, 5)) for one in ranks], 20)
    assert type(first) is SnapshotError and f"rank 1: {fault}" in str(first) and second is fault
    state = TrainState(rng=False, w={"w": torch.zeros(1)})
    acts = [partial(caught, partial(one.into, state, "latest", Fit(True, None, None))) for one in ranks]
    first, second = in_threads(acts, 20)
    assert type(first) is NoSnapshotError and f"rank 1: {fault}" in str(first) and second is fault


def test_what_does_not_fit_on_one_rank_is_raised_on_all() -> None:
    """The others were filled, and waited for it in what they did next."""
    table = Table(2)
    faults: list[StateError | None] = [None, StateError("w has another shape")]

    def restore(rank: int) -> None:
        one = Restore(Buffers((5,)), table.of(rank), 1, 10.0, 10.0, None)  # type: ignore[arg-type]
        one._verified = lambda step: (SimpleNamespace(close=lambda: None), "")  # type: ignore[method-assign, assignment, return-value]
        one._planned = lambda *_: (None if faults[rank] else ("manifest", "targets"), faults[rank])  # type: ignore[method-assign, assignment, return-value]
        with pytest.raises(StateError, match="w has another shape" if rank else "rank 1: w has another"):
            one._own(None, [5], None)  # type: ignore[arg-type]

    in_threads([partial(restore, rank) for rank in range(2)], 20)


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
