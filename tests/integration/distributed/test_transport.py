"""torchft's CheckpointTransport over our group, between real processes: values, places, faults, deaths."""

from __future__ import annotations

from .gang import Gang


def test_a_state_goes_to_two_replicas(gang: Gang) -> None:
    said = gang.play("plays_transport:healing", 3, killed=(2,), limit_s=70)
    for rank in (1, 2):
        values, faults = said[rank][:2]
        assert values == {"new": True, "kept": True, "placed": True, "addresses": True}
        damaged, other, elsewhere, *late = faults["faults"]
        assert damaged.startswith("DamagedError") and "model/large" in damaged
        assert other.startswith("StateError") and "step 10, not 11" in other
        assert elsewhere.startswith("UsageError")
        if rank == 1:
            assert late[0].startswith("OperationTimeout") and faults["seconds"] < 5
    assert said[0][0]["faults"][0].startswith("StateError") and "x" in said[0][0]["faults"][0]
    assert said[0][-1] == {"survived": True}


def test_parts_of_tensors_go_into_parts(gang: Gang) -> None:
    said = gang.play("plays_transport:parts", 2)
    assert said[1][0]["fault"] == "" and said[1][0]["local"] == said[1][0]["wanted"]
