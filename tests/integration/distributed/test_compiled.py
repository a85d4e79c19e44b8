"""Functional collectives on the backend, plain and compiled: gloo's numbers, and errors as exceptions."""

from __future__ import annotations

import pytest
import torch

from .gang import Gang


@pytest.mark.deadline(120)
def test_numbers_are_those_of_gloo(gang: Gang) -> None:
    ours = gang.play("plays_compiled:functional_collectives", 2, backend="pccl", limit_s=110)
    theirs = gang.play("plays_compiled:functional_collectives", 2, backend="gloo", limit_s=110)
    for our, their in zip(ours, theirs, strict=True):
        assert [line["case"] for line in our] == [line["case"] for line in their]
        for a, b in zip(our, their, strict=True):
            torch.testing.assert_close(torch.tensor(a["numbers"]), torch.tensor(b["numbers"]))
        assert our[0]["numbers"] == our[1]["numbers"] and our[2]["numbers"] == our[3]["numbers"]


def test_a_compiled_function_survives_a_death(gang: Gang) -> None:
    said = gang.play("plays_compiled:a_death_between", 3, killed=(1,))
    for rank in (0, 2):
        assert said[rank][0]["before"] == [7.0, 7.0]
        assert "rank 1 (peer " in said[rank][0]["error"]
        assert said[rank][0]["after"] == [5.0, 5.0]
