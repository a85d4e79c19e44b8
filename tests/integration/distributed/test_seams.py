"""Features that were made apart, together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from pccl_py import Master

from .gang import Gang
from .plays_seams import CONFIG, net

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
    said = gang.play("plays_seams:by_step_across_islands", 4, address=master.address, arrivals=arrivals)
    check_alike(said, [0, 1, 2, 3])
    wholes = [torch.cat([p.detach().reshape(-1) for p in net(n).parameters()]).tolist() for n in (0, 1)]
    assert said[0][0]["values"] in wholes
    assert all(lines[0]["values"] == said[0][0]["values"] for lines in said)


@pytest.mark.parametrize(
    ("stopped", "stop_in"),
    [([2], "committed"), *(pytest.param(who, "forward", marks=pytest.mark.nightly) for who in ([3], [2, 3]))],
)
def test_an_evicted_island_that_trains_per_step_comes_back(
    gang: Gang, master: Master, stopped: list[int], stop_in: str
) -> None:
    said = gang.play(
        "plays_seams:by_step_across_islands", 4, address=master.address, arrivals=[0, 1, 2, 3], steps=14,
        stopped=stopped, stop_in=stop_in,
    )  # fmt: skip
    check_alike(said, [0, 1, 2, 3])
    assert of(said[2], "void") == of(said[3], "void") != []
    assert of(said[0], "of")[-1] == of(said[2], "of")[-1] == 2


@pytest.mark.parametrize("victim", [2, 3])
def test_an_island_that_trains_per_step_is_killed_and_another_comes(
    gang: Gang, master: Master, victim: int
) -> None:
    said = gang.play(
        "plays_seams:by_step_across_islands", 6, killed=(victim,), address=master.address,
        arrivals=[0, 1, 2, 3], victim=victim,
    )  # fmt: skip
    check_alike(said, [0, 1, 4, 5])
    assert of(said[5 - victim], "kind") == ["IslandLost"], said[5 - victim]
    assert f"rank {victim % 2} of this island is gone" in of(said[5 - victim], "lost")[0]
    assert of(said[4], "began") == [5] and of(said[0], "of")[3:5] == [1, 1] and of(said[0], "of")[-1] == 2


@pytest.mark.parametrize("backend", ["gloo", "pccl"])
def test_the_inner_timeout_is_that_of_the_models_group(gang: Gang, master: Master, backend: str) -> None:
    said = gang.play("plays_seams:timeouts", 2, address=master.address, backend=backend)
    assert 2.5 < of(said[0], "seconds")[0] < 10, said[0]
    assert not [text for lines in said for text in of(lines, "warned")[0] if "timeout" in text]
