"""ZeRO, FSDP1, FSDP2, HSDP, tensor parallel, DTensor and DCP unmodified on the backend: gloo's numbers."""

from __future__ import annotations

import pytest
import torch

from .gang import Gang
from .plays_ddp import model
from .test_ddp import alone

CASES = ["zero-1", "fsdp1", "fsdp2", "fsdp2, bf16", "hsdp", "tensor parallel", "dtensor", "dcp"]


@pytest.mark.deadline(150)
def test_numbers_are_those_of_gloo(gang: Gang) -> None:
    ours = gang.play("plays_sharded:all_cases", 4, backend="pccl", limit_s=140)
    theirs = gang.play("plays_sharded:all_cases", 4, backend="gloo", limit_s=140)
    for our, their in zip(ours, theirs, strict=True):
        assert [line["case"] for line in our] == [line["case"] for line in their] == CASES
        for a, b in zip(our, their, strict=True):
            for name in ("numbers", "weights"):
                torch.testing.assert_close(
                    torch.tensor(a.get(name, [])), torch.tensor(b.get(name, [])), rtol=2e-4, atol=2e-5
                )


def test_replicas_of_hsdp_train_on_when_one_is_killed(gang: Gang) -> None:
    said = gang.play("plays_sharded:hsdp_with_a_death", 3, killed=(1,), victim=1)
    expected = torch.tensor(alone([[0, 1, 2], [0, 2], [0, 2], [0, 2]]))
    for rank in (0, 2):
        end = said[rank][-1]
        torch.testing.assert_close(torch.tensor(end["weights"]), expected, rtol=1e-5, atol=1e-6)
        assert end["world"] == 2
        assert "rank 1 (peer " in said[rank][0]["error"]


@pytest.mark.parametrize(("victim", "at"), [(3, "backward"), (2, "forward")])
def test_replicas_of_two_shards_train_on_when_one_is_killed(gang: Gang, victim: int, at: str) -> None:
    """With the dead rank goes its sibling; the shards of those who are left never part."""
    said = gang.play("plays_sharded:replicas_with_a_death", 6, killed=(victim,), victim=victim, at=at)
    flat = torch.tensor(alone([list(range(6)), [0, 1, 4, 5], [0, 1, 4, 5], [0, 1, 4, 5]]))
    shapes = [p.shape for p in model().parameters()]
    parts = [p.reshape(s) for p, s in zip(flat.split([s.numel() for s in shapes]), shapes, strict=True)]
    for rank in (0, 1, 4, 5):
        end = said[rank][-1]
        shards = [p.chunk(2)[rank % 2].reshape(-1) for p in parts if len(p.chunk(2)) > rank % 2]
        torch.testing.assert_close(torch.tensor(end["weights"]), torch.cat(shards), rtol=1e-5, atol=1e-6)
        assert end["world"] == 2
    assert "lost" in said[5 - victim][-1]
