"""Deaths, newcomers and bad input: errors in the right place, values of those who are left."""

from __future__ import annotations

import re
from typing import Any

import pytest

from .gang import Gang

CALLS = {
    "all_reduce": [2.0] * 3,
    "broadcast": [0.0] * 2,
    "barrier": None,
    "all_gather": [0.0, 0.0, 1.0, 1.0],
    "reduce_scatter": [2.0] * 2,
    "all_to_all": [0.0, 1.0],
}


def is_loss(outcome: dict[str, Any], rank: int) -> bool:
    return (
        "DistBackendError" in outcome["kinds"]
        and "PeerLost" in outcome["kinds"]
        and f"rank {rank} (peer " in outcome["error"]
        and "repeat the step" in outcome["error"]
        and outcome["seconds"] < 5
    )


@pytest.mark.parametrize(("call", "victim"), [(call, 0) for call in CALLS] + [("all_reduce", 2)])
def test_a_call_after_a_death_raises_on_all_and_works_again(gang: Gang, call: str, victim: int) -> None:
    said = gang.play("plays_churn:call_after_a_death", 3, killed=(victim,), call=call, victim=victim)
    for rank, place in zip([rank for rank in range(3) if rank != victim], (0, 1), strict=True):
        first, second = said[rank]
        assert is_loss(first["first"], victim), first
        assert (first["size"], first["rank"]) == (2, place)
        assert second["second"] == {"value": repr(CALLS[call])}


def test_with_retry_nothing_is_raised(gang: Gang) -> None:
    said = gang.play("plays_churn:retrying", 3, killed=(0,), victim=0)
    for rank in (1, 2):
        assert said[rank] == [{"values": [5.0] * 4, "size": 2, "changed": True}, {"again": False}]


@pytest.mark.parametrize("encrypt", ["", "yes"])
def test_a_kill_over_tcp_with_the_groups_own_secret(gang: Gang, encrypt: str) -> None:
    """It proves who is there; that it encrypts as well has to be asked for."""
    said = gang.play("plays_churn:over_tcp", 3, killed=(1,), victim=1, encrypt=encrypt)
    for rank in (0, 2):
        assert said[rank][0] == {"encrypt": bool(encrypt), "flags": 1 | 2 | (0 if encrypt else 4)}
        assert said[rank][1] == {"after": 10}


def test_groups_lose_their_own_members_and_global_ranks_follow(gang: Gang) -> None:
    said = gang.play("plays_churn:subgroups", 5, killed=(3,), victim=3)
    groups = {0: [0, 1], 1: [0, 1], 2: [2, 3], 4: [2, 3]}
    for rank, ranks in groups.items():
        first, second = said[rank]
        assert ("value" in first["lost"]) == (rank < 2)
        assert rank < 2 or is_loss(first["lost"], 1)
        assert is_loss(first["world"], 3)
        assert (first["value"], first["ranks"], first["rank"]) == (2.0, ranks, [0, 1, 0, None, 1][rank])
        assert second == {"broadcast": 1.0 if rank < 2 else 4.0, "later": 4}


def test_a_newcomer_joins_through_the_master_alone(gang: Gang) -> None:
    said = gang.play("plays_churn:newcomer", 3)
    for rank in range(3):
        assert said[rank][-1] == {"value": [6.0, 6.0], "rank": rank, "size": 3, "all": [0, 1, 2]}
    assert said[0][0] == said[1][0] == {"steps": True, "changed": True}


def test_destroy_and_init_in_one_process(gang: Gang) -> None:
    said = gang.play("plays_churn:again_and_again", 2)
    assert said == [[{"sums": [1.0, 1.0, 3.0, 3.0, 5.0, 5.0]}]] * 2


def test_bad_input_is_refused_and_the_group_goes_on(gang: Gang) -> None:
    said = gang.play("plays_churn:bad_input", 2)
    expected = {
        "float8": "it can be sent around, not reduced",
        "float8 bits": "it can be sent around, not reduced",
        "complex": "complex tensors",
        "traced": "has no memory",
        "sparse": "pass a dense tensor",
        "meta": "meta",
        "shapes": "rank 0 (peer ",
        "dtypes": "rank 1 (peer ",
        "list": "3 tensors in the list for 2 ranks",
        "anysource": "nobody has sent",
        "objects": "type set cannot be sent",
        "splits": "rank 0 calls all_to_all with 2 elements for rank 0, which expects 3 from it",
        "no tensor": "a list in place of a tensor",
        "late": "; missing: rank 1 (peer ",
    }
    for rank, lines in enumerate(said):
        for line in lines[:-1]:
            assert expected[line["case"]] in line["error"], line
            if line["case"] in ("shapes", "dtypes"):
                both = set(re.findall(r"rank (\d) \(peer \d\) calls all_reduce", line["error"]))
                assert both == {"0", "1"}, line
            assert line["seconds"] < 5
        assert len(lines) == len(expected) + 1 - rank
        assert lines[-1] == {"case": "last", "value": repr([2.0, 2.0, 2.0, 2.0, 2.0])}


def test_data_loader_workers_are_not_taken_for_their_trainer(gang: Gang) -> None:
    said = gang.play("plays_churn:loaders", 3, killed=(1,), victim=1)
    for rank in (0, 2):
        assert is_loss(said[rank][0]["first"], 1)
        assert (said[rank][0]["total"], said[rank][0]["size"]) == (56.0, 2)


def test_messages_to_a_dead_rank_raise(gang: Gang) -> None:
    said = gang.play("plays_churn:to_a_dead_one", 3, killed=(2,), victim=2)
    assert said[0][0]["received"] == [2.0, 2.0]
    for rank in (0, 1):
        first = said[rank][0]["first"]
        assert "PeerLost" in first["kinds"] and first["seconds"] < 5, first
        assert said[rank][1]["got"] == [1.0 - rank] * 2


@pytest.mark.parametrize("call", ["recv", "recv_any", "send", "batch"])
def test_a_death_while_a_message_is_awaited(gang: Gang, call: str) -> None:
    said = gang.play("plays_churn:killed_in_messages", 3, killed=(2,), call=call)
    for rank in (0, 1):
        died = said[rank][0]["died"]
        assert "PeerLost" in died["kinds"] and "DistBackendError" in died["kinds"], died
        assert died["seconds"] < 2.5, died  # of a heartbeat limit of 0.8 s
        assert said[rank][0]["mine"] == [6.0 - rank] * 2
        assert said[rank][1]["sum"] == 2.0


def test_parts_split_off_know_their_ranks_in_the_world(gang: Gang) -> None:
    said = gang.play("plays_churn:splitting", 4)
    for rank in range(4):
        half = [rank % 2, rank % 2 + 2]
        own = [rank] if rank >= 2 else None
        assert said[rank] == [{"value": [[4.0, 6.0][rank % 2]] * 2, "ranks": half, "own": own}]


def test_errors_are_torchs_and_ours(gang: Gang) -> None:
    said = gang.play("plays_churn:errors_are_both_kinds", 2, killed=(1,))
    assert said[0][0] == {"kind": "both"}
    assert said[0][1]["success"] is True and said[0][1]["exception"] == "None"
