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


@pytest.mark.parametrize(("victim", "at"), [(3, "backward"), (2, "forward"), (3, "optimizer")])
def test_replicas_of_two_shards_train_on_when_one_is_killed(gang: Gang, victim: int, at: str) -> None:
    """With the dead rank goes its sibling; the shards of those who are left never part."""
    said = gang.play("plays_sharded:replicas_with_a_death", 6, killed=(victim,), victim=victim, at=at)
    left = [0, 1, 4, 5]
    of_step_1 = list(range(6)) if at == "optimizer" else left  # its gradients were in the sum by then
    shards = shards_of(alone([list(range(6)), of_step_1, left, left]))
    for rank in left:
        end = said[rank][-1]
        torch.testing.assert_close(torch.tensor(end["weights"]), shards[rank % 2], rtol=1e-5, atol=1e-6)
        assert end["world"] == 2
    assert "lost" in said[5 - victim][-1]


@pytest.mark.parametrize("at", ["forward", "backward", "optimizer"])
def test_a_replica_comes(gang: Gang, at: str) -> None:
    said = gang.play("plays_sharded:replicas_with_joiners", 6, at=at)
    used = [line["used"] for line in said[0] if "used" in line]
    assert used[:2] == [[0, 1, 2, 3]] * 2 and used[-2:] == [list(range(6))] * 2
    shards = shards_of(alone(used))
    for lines in said:
        end = lines[-1]
        torch.testing.assert_close(torch.tensor(end["weights"]), shards[end["shard"]], rtol=1e-5, atol=1e-6)
    assert [line["step"] for line in said[4] if "used" in line] == [len(used) - 2, len(used) - 1]


def shards_of(weights: list[float]) -> list[torch.Tensor]:
    """What each of two ranks has of a model."""
    shapes = [p.shape for p in model().parameters()]
    flat = torch.tensor(weights).split([s.numel() for s in shapes])
    whole = [p.reshape(s).chunk(2) for p, s in zip(flat, shapes, strict=True)]
    return [torch.cat([p[i].reshape(-1) for p in whole if len(p) > i]) for i in range(2)]
