"""Features that were made apart, together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pccl_py import Master

from .gang import Gang
from .plays_seams import CONFIG

Said = list[list[dict[str, Any]]]


@pytest.fixture
def master() -> Iterator[Master]:
    with Master(config=CONFIG) as running:
        yield running


def of(lines: list[dict[str, Any]], key: str) -> list[Any]:
    return [line[key] for line in lines if key in line]


def check_alike(said: Said, ranks: list[int]) -> None:
    for place in (0, 1):
        digests: dict[int, set[str]] = {}
        for rank in ranks:
            for line in said[rank]:
                if rank % 2 == place and "step" in line:
                    digests.setdefault(line["step"], set()).add(f"{line['of']} {line['digest']}")
        assert all(len(found) == 1 for found in digests.values()), digests
    ends = [line for rank in ranks for line in said[rank] if "end" in line]
    assert len(ends) == len(ranks)
    assert all(line["values"] == ends[0]["values"] and line["steps"] == ends[0]["steps"] for line in ends)


@pytest.mark.parametrize("arrivals", [[0, 1, 2, 3], [0, 2, 3, 1], [2, 1, 0, 3]])
def test_islands_that_train_per_step_begin_with_the_model_of_one_island(
    gang: Gang, master: Master, arrivals: list[int]
) -> None:
    """Whatever the order in which ranks came: never the first shard of one and the second of another."""
    import torch

    from .plays_seams import net

    said = gang.play("plays_seams:by_step_across_islands", 4, address=master.address, arrivals=arrivals)
    check_alike(said, [0, 1, 2, 3])
    wholes = [torch.cat([p.detach().reshape(-1) for p in net(n).parameters()]).tolist() for n in (0, 1)]
    assert said[0][0]["values"] in wholes
    assert all(lines[0]["values"] == said[0][0]["values"] for lines in said)
