"""ZeRO, FSDP1, FSDP2, HSDP, tensor parallel, DTensor and DCP unmodified on the backend: gloo's numbers."""

from __future__ import annotations

import pytest
import torch

from .gang import Gang

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
