"""Ranks in step come to one last step, whoever is asked, and when; and go on to another one."""

from __future__ import annotations

from random import Random

import pytest

torch = pytest.importorskip("torch")

from pccl_py.state.last_step import LastStep  # noqa: E402


@pytest.mark.parametrize("seed", range(20))
def test_all_ranks_end_at_one_step(seed: int) -> None:
    """A collective in each step: nobody is at the end of the next one before all are at the end of this."""
    random, store = Random(seed), torch.distributed.HashStore()
    ranks = [LastStep(store, "run") for _ in range(3)]
    asked_from = [random.choice([5, 6, 7, 10**6]) for _ in ranks]
    asked_from[random.randrange(3)] = 5 + seed % 3
    ends: list[list[int]] = [[] for _ in ranks]
    for step in range(1, 30):
        for rank in random.sample(range(3), 3):
            asked = step >= asked_from[rank] and not ends[rank]
            if ranks[rank].reached(step, asked):
                ends[rank].append(step)
    assert ends[0] == ends[1] == ends[2] == [min(asked_from) + 1]


def test_others_go_on_and_may_be_asked_later() -> None:
    store = torch.distributed.HashStore()
    first, second = LastStep(store, "run"), LastStep(store, "run")
    assert not first.reached(3, True) and not second.reached(3, False)
    assert first.reached(4, True) and second.reached(4, False)
    assert not second.reached(5, False) and not second.reached(6, True)
    assert second.reached(7, True)


class Gone:
    def check(self, keys: list[str]) -> bool:
        raise RuntimeError("connection reset")

    def compare_set(self, *words: str) -> bytes:
        raise RuntimeError("connection reset")


def test_alone_and_without_the_store() -> None:
    alone = LastStep()
    assert not alone.reached(1, False) and alone.reached(1, True)
    orphan = LastStep(Gone(), "run")
    assert orphan.reached(1, True) and not orphan.reached(2, False)
