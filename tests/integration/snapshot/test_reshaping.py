"""A sharded training that goes on with another number of ranks, from memory alone: all bits as if nobody had
been lost."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from pccl_py import Master
from pccl_py.snapshot import ask
from tests.conftest import Spawn
from tests.integration.peers import PATIENT

from .conftest import free_keepers
from .gang import FOREVER, calm, kill_keeper, lines, rest, start, step_of


@pytest.fixture
def master() -> Iterator[Master]:
    with Master(config=PATIENT) as running:
        yield running
        free_keepers()


def trainers() -> set[str]:
    found = [ask.summary(path) for path in ask.sockets()]
    return {
        trainer.trainer for one in found if one is not None and one.run == "gang" for trainer in one.trainers
    }


@pytest.mark.deadline(300)
def test_two_of_four_hosts_are_lost_and_the_other_two_go_on(
    master: Master, spawn: Spawn, tmp_path: Path
) -> None:
    def gang(world: int) -> list[subprocess.Popen[str]]:
        common = {"store": tmp_path / str(world), "master": master.address, "parity": 2}
        more = {"founders": world, "every": 2, "prefix": "h", "steps": FOREVER}
        return [start(spawn, rank=rank, world=world, **common, **more) for rank in range(world)]

    ranks = gang(4)
    told = [lines(rank, lambda line: line.get("losses") == 2 and line["step"] >= 6) for rank in ranks]
    for rank in ranks:
        rank.kill()
    for name in ("h2", "h3"):
        kill_keeper(name)
    for number, rank in enumerate(ranks):
        told[number] += rest(rank)
    said = {one["step"]: one["bits"] for one in told[0] if "losses" in one}
    coded = max(one["coded"] or 0 for one in told[0] if "losses" in one)
    again = gang(2)
    firsts = [lines(rank, lambda line: "source" in line)[0] for rank in again]
    for number, first in enumerate(firsts):
        assert first["source"] == "snapshot", first["why"]
        assert coded <= first["step"] <= max(said) + 1
        assert first["at"] == first["step"] and first["bits"] == said.get(first["step"], first["bits"])
        assert "'3'" in first["why"], number
    assert firsts[0]["step"] == firsts[1]["step"] and firsts[0]["bits"] == firsts[1]["bits"]
    after = [lines(rank, lambda line: (line.get("coded") or 0) > firsts[0]["step"]) for rank in again]
    until = time.monotonic() + 20
    while trainers() != {"0", "1"}:
        assert time.monotonic() < until, "what is nobody's any more is freed once there is something newer"
        time.sleep(0.1)
    for rank in again:
        rank.kill()
    found = {one["step"]: one["bits"] for one in after[0] if "losses" in one}
    wanted = calm(max(found))
    assert found == {step: wanted[step] for step in found}
    assert firsts[0]["bits"] == wanted[firsts[0]["step"]]


@pytest.mark.nightly
@pytest.mark.deadline(300)
def test_ranks_of_one_host_become_more_and_fewer(master: Master, spawn: Spawn, tmp_path: Path) -> None:
    def gang(store: str, world: int, steps: int) -> list[list[dict[str, Any]]]:
        common = {"store": tmp_path / store, "master": master.address, "keeper": "one", "every": 2}
        ranks = [
            start(spawn, rank=rank, world=world, founders=world, steps=FOREVER, **common)
            for rank in range(world)
        ]
        told = [
            lines(rank, lambda line: step_of(line, steps) and line["snapshot"] >= steps - 2) for rank in ranks
        ]
        for rank in ranks:
            rank.kill()
        return [one + rest(rank) for one, rank in zip(told, ranks, strict=True)]

    two = gang("two", 2, 5)
    four = gang("four", 4, 11)
    assert {one[0]["step"] for one in four} <= set(range(4, 20)) and len(
        {one[0]["step"] for one in four}
    ) == 1
    again = gang("again", 2, 17)
    wanted = calm(max(one["step"] for one in again[0] if "losses" in one))
    for said in (*two, *four, *again):
        first = said[0]
        assert first["step"] is None or first["bits"] == wanted[first["step"]]
        for one in said:
            assert "losses" not in one or one["bits"] == wanted[one["step"]]
    assert [one[0]["source"] for one in (*four, *again)] == ["snapshot"] * 6
    assert all(one[0]["at"] == one[0]["step"] for one in again), "its own position in the data"
