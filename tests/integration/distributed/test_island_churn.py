"""Three islands whose ranks are killed and stopped at random: no step is lost, and shards never part."""

from __future__ import annotations

import os
from collections import defaultdict

import pytest

from pccl_py import Master
from tests.integration.distributed.plays_island_churn import CONFIG, LOST

from .gang import Gang

SECONDS = float(os.environ.get("PCCL_ISLAND_CHURN_S", "15"))
SEED = int(os.environ.get("PCCL_ISLAND_CHURN_SEED", "1"))


@pytest.mark.nightly
@pytest.mark.deadline(120 + SECONDS)
def test_islands_under_churn(gang: Gang) -> None:
    with Master(config=CONFIG) as master:
        said = gang.play(
            "plays_island_churn:churn",
            3,
            address=master.address,
            seconds=SECONDS,
            seed=SEED,
            limit_s=90 + SECONDS,
        )
    lines = [line for rank in said for line in rank]
    ends = [line for line in lines if "statuses" in line]
    assert not (failed := [line for line in lines if "failed" in line]), "\n".join(
        failed[0]["failed"].splitlines()[-12:]
    )
    for end in ends:
        assert set(end["statuses"]) <= {0, LOST, -9}, end
    steps = [line for line in lines if "step" in line]
    held = defaultdict(set)
    for line in steps:
        held[line["run"], line["step"], line["place"]].add((line["of"], line["digest"]))
    apart = [key for key, different in held.items() if len(different) > 1]
    assert not apart, [line for line in steps if (line["run"], line["step"], line["place"]) == apart[0]]
    for run in {line["run"] for line in steps}:  # there are several where all islands were gone at once
        taken = {line["step"] for line in steps if line["run"] == run}
        assert taken == set(range(min(taken), max(taken) + 1))
    kills = sum(end["trouble"] == "kill" for end in ends)
    healed = len({line["pid"] for line in steps if line["step"] > 0})
    print(f"{kills} kills, {len(ends)} lives of islands, {len(held) // 2} steps, {healed} ranks")
    assert kills > 0 and max(line["of"] for line in steps) > 1
