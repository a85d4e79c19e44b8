"""Which of memory and disk `protect` asks first."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from pccl_py.state.protect import Run


class Snapshots:
    """Of a lost host: nothing is here, and the other keepers have what they coded last."""

    def __init__(self, coded: int | None) -> None:
        self.coded = coded

    def latest(self) -> None:
        return None

    def is_older_than(self, durable: int | None) -> bool:
        return self.coded is not None and durable is not None and self.coded < durable


class Checkpoints:
    def __init__(self, step: int | None) -> None:
        self.step = step

    def latest(self) -> int | None:
        return self.step


@pytest.mark.parametrize(
    ("coded", "durable", "first"),
    [
        (6, 15, Checkpoints),
        (15, 15, Snapshots),
        (18, 15, Snapshots),
        (None, 15, Snapshots),
        (6, None, Snapshots),
    ],
)
def test_what_is_newer_comes_first(coded: int | None, durable: int | None, first: type[Any]) -> None:
    """A snapshot of step 6 that others brought back once won over a checkpoint of step 15."""
    run = object.__new__(Run)
    run._snapshots, run._checkpoints = Snapshots(coded), Checkpoints(durable)
    sources = run._sources()
    assert isinstance(sources[0], first) and len(sources) == 2
