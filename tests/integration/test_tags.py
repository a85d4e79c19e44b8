"""Which calls of several peers are one operation, by their tags or their order."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from pccl_py import Communicator, Master, UsageError
from tests.threads import in_threads

from .peers import together


def test_tags_meet_whatever_the_order(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        arrays = {tag: np.full(5000, tag, np.int64) for tag in (3, 2**32 - 3, 0, 17)}
        order = list(arrays) if index else list(reversed(arrays))
        works = {tag: comm.all_reduce(arrays[tag], tag=tag, async_op=True) for tag in order}
        for tag, work in works.items():
            info = work.wait()
            assert work.is_completed() and work.info == info
            assert np.all(arrays[tag] == 2 * tag)

    together(master.address, 2, play)


def test_threads_with_tags(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        def thread(tag: int) -> None:
            for step in range(20):
                array = np.full(1 + 997 * tag, step * 10 + tag, np.float64)
                comm.all_reduce(array, tag=tag)
                assert np.all(array == 2 * (step * 10 + tag))

        in_threads([partial(thread, tag) for tag in range(4)])

    together(master.address, 2, play)


def test_threads_without_tags_are_told(master: Master) -> None:
    """Two threads that count calls together would pair them differently on each peer."""

    def play(comm: Communicator, index: int) -> None:
        if index == 0:
            work = comm.all_reduce(np.ones(3), async_op=True)

            def other() -> None:
                with pytest.raises(UsageError, match="give each thread its tags"):
                    comm.all_reduce(np.ones(3))

            in_threads([other])
            comm.barrier(tag=1)
            work.wait()
        else:
            comm.barrier(tag=1)
            comm.all_reduce(np.ones(3))

    together(master.address, 2, play)


def test_one_tag_twice_at_once(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        if comm.rank == 0:
            work = comm.all_reduce(np.ones(3), tag=4, async_op=True)
            with pytest.raises(UsageError, match="in flight already"):
                comm.all_reduce(np.ones(3), tag=4)
            comm.barrier(tag=5)
            work.wait()
        else:
            comm.barrier(tag=5)
            comm.all_reduce(np.ones(3), tag=4)
        comm.all_reduce(np.ones(3), tag=4)

    together(master.address, 2, play)
