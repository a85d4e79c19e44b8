"""Groups that become groups of other peers, by torch's reconfigure contract."""

from __future__ import annotations

from .gang import Gang


def test_groups_grow_shrink_split_merge_and_are_reordered(gang: Gang) -> None:
    said = gang.play("plays_reconfigure:contract", 4)
    for rank in range(4):
        (told,) = said[rank]
        assert "has no peers until reconfigure()" in told["before"]["error"]
        assert told["sums"] == [rank + 1.0, 10.0, 3.0 if rank < 2 else 7.0, 10.0]
        assert told["reverse"] == [3 - rank, 10.0]
        assert told["shrunk"] == {0: [0, 8.0], 1: None, 2: [1, 8.0], 3: [2, 8.0]}[rank]
        assert told["message"] == {0: 4.0, 1: 0.0, 2: 1.0, 3: 3.0}[rank]
        assert told["aborted"] == 10.0
        assert "uuid 160 was already used" in told["again"]["error"]
        assert "RuntimeError" in told["again"]["kinds"]
    assert "PeerLost" in said[1][0]["excluded"]["kinds"]


def test_a_failed_reconfigure_leaves_the_group_as_it_was(gang: Gang) -> None:
    said = gang.play("plays_reconfigure:failing", 4, killed=(3,))
    for rank in range(3):
        (told,) = said[rank]
        assert "OperationTimeout" in told["failed"]["kinds"], told["failed"]
        assert told["took"] < 4
        assert "is no handle of a pccl group" in told["wrong"]["error"]
        assert "this group's own among them" in told["missing"]["error"]
        assert (told["sums"], told["rank"]) == ([6.0] * 4, 2 - rank)


def test_the_same_model_trains_on_among_the_survivors(gang: Gang) -> None:
    said = gang.play("plays_reconfigure:after_a_death", 3, killed=(0,))
    for rank in (1, 2):
        (told,) = said[rank]
        assert told["grads"] == [[2.0, 2.0], [2.5, 2.5]]
        assert "PeerLost" in told["lost"]["kinds"]
        assert told["lost"]["seconds"] < 2.5
        assert told["errors"] == ["ErrorType.SUCCESS", "ErrorType.REMOTE_ERROR", "ErrorType.SUCCESS"]
