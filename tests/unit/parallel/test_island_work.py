"""An operation of an island that runs while its ranks train: its end is the same on all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from pccl_py import Cancelled, CollectiveError, Evicted, OpInfo, OutcomeUnknown, UsageError
from pccl_py.parallel.island_bond import Bond
from pccl_py.parallel.island_work import IslandWork
from tests.threads import in_threads

INFO = OpInfo((1, 2), 0, 0, 0.0, 1, 0, None)


class FakeSiblings:
    """Two ranks, as threads."""

    def __init__(self, rank: int, barrier: threading.Barrier, told: dict[int, int]) -> None:
        self.rank, self.size = rank, 2
        self._barrier, self._told = barrier, told

    def tell(self, number: int) -> list[int]:
        self._told[self.rank] = number
        self._barrier.wait(10)
        found = [self._told[0], self._told[1]]
        self._barrier.wait(10)
        return found


class FakeComm:
    """Of a peer that the run goes on without, or not."""

    out = False

    @property
    def world_size(self) -> int:
        if self.out:
            raise Evicted("peer 7 is gone")
        return 2


class FakeBond(Bond):
    def __init__(self, siblings: Any, comm: Any) -> None:
        self._siblings, self.comm, self.is_out = siblings, comm, False


class FakeWork:
    """Ends as it is told to."""

    def __init__(self, end: Callable[[], OpInfo]) -> None:
        self.wait = end


def committed() -> OpInfo:
    return INFO


def failing(error: Exception) -> Callable[[], OpInfo]:
    def end() -> OpInfo:
        raise error

    return end


def on_two_ranks(
    posts: list[Callable[[], Any]], *, out: bool = False, waits: int = 1
) -> list[tuple[Any, bool]]:
    """What each rank's wait() returned or raised, and whether its island is out of the run then."""
    barrier, told = threading.Barrier(2), dict[int, int]()

    def rank(number: int) -> tuple[Any, bool]:
        comm = FakeComm()
        comm.out = out
        bond = FakeBond(FakeSiblings(number, barrier, told), comm)
        work = IslandWork(bond, posts[number])  # says nothing of how it went, whatever became of it
        found: Any = None
        for _ in range(waits):
            try:
                found = work.wait()
            except Exception as error:
                found = error
        return found, bond.is_out

    return in_threads([partial(rank, number) for number in (0, 1)])


def test_what_commits_on_all_ranks_is_told_once() -> None:
    done: Any = partial(FakeWork, committed)
    assert on_two_ranks([done, done], waits=3) == [(INFO, False)] * 2


@pytest.mark.parametrize("error", [Evicted("out"), OutcomeUnknown("who knows")])
def test_who_cannot_begin_says_so_when_all_wait(error: Exception) -> None:
    """Its sibling trains on until then, in collectives of the model to which this rank has to come."""
    ends = on_two_ranks([failing(error), partial(FakeWork, committed)], out=True)  # type: ignore[list-item]
    assert ends[0] == (error, True)
    assert isinstance(ends[1][0], Evicted) and "rank 0 of this island" in str(ends[1][0]) and ends[1][1]


def test_what_fails_on_one_rank_fails_on_all() -> None:
    error = Cancelled("by peer 3")
    works: list[Any] = [partial(FakeWork, committed), partial(FakeWork, failing(error))]
    (first, out), (second, also) = on_two_ranks(works)
    assert second is error and type(first) is CollectiveError and "rank 1" in str(first)
    assert not out and not also


def test_wrong_arguments_raise_at_once() -> None:
    bond: Any = None
    with pytest.raises(UsageError, match="op"):
        IslandWork(bond, failing(UsageError("op")))  # type: ignore[arg-type]
