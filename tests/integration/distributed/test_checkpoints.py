"""Checkpoints of several ranks: any layout saves, any other one loads it, and both hold the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from .gang import Gang

LAYOUTS = [("fsdp", 4), ("hsdp", 4), ("tp", 2), ("ddp", 3), ("tp+fsdp", 4), ("plain", 1)]
# By number: which layouts load what each one has saved. All pairs are more than a test's time allows.
LOADS = {
    "fsdp": [("fsdp", 4), ("fsdp", 2), ("tp", 2), ("plain", 1)],
    "hsdp": [("fsdp", 3), ("ddp", 2)],
    "tp": [("fsdp", 4), ("tp", 4)],
    "ddp": [("fsdp", 2), ("plain", 1)],
    "tp+fsdp": [("tp+fsdp", 4), ("hsdp", 4), ("plain", 1)],
    "plain": [("fsdp", 3), ("tp", 2)],
}


@pytest.mark.parametrize(("layout", "ranks"), LAYOUTS)
def test_any_layout_is_loaded_by_others_to_the_bit(gang: Gang, tmp_path: Path, layout: str, ranks: int) -> None:
    root, expected = str(tmp_path / "run"), str(tmp_path / "expected")
    said = gang.play("plays_checkpoint:save", ranks, limit_s=120, layout=layout, root=root, expected=expected)
    written = [lines[-1]["bytes"] for lines in said]
    if layout == "ddp":  # replicas are divided: nobody writes all, and together they write it once
        assert sum(written) < 1.5 * max(written) * ranks
    for other, count in LOADS[layout]:
        given = gang.play("plays_checkpoint:load", count, limit_s=120, layout=other, root=root, expected=expected)
        if (other, count) == (layout, ranks):
            assert all(lines[-1]["exact"] and not lines[-1]["missing"] for lines in given)
        for rank, lines in enumerate(given):  # who was not there begins with its own random numbers
            assert bool(lines[-1]["missing"]) == (rank >= ranks)
