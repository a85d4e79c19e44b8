"""The rows of `bench ckpt`: what their JSON holds, and which of others' modes ours is compared with."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from pccl_py.bench.ckpt import measure
from pccl_py.bench.ckpt.measure import CkptRow, RawRow
from pccl_py.bench.ckpt.worker import measured_save
from pccl_py.errors import UsageError

MIB = 1 << 20


def row(method: str, **other: Any) -> CkptRow:
    figures = dict.fromkeys(("blocked_s", "first_lost_s", "lost_s", "durable_s", "load_s", "cpu_s"), 1.0)
    rest = {"extra_bytes": MIB, "each_s": 6.0, "plain_s": 3.0, "right": True}
    return CkptRow(method, 1 << 30, 1, **(figures | rest | other))


def test_ours_is_compared_with_the_best_mode_of_each_other_figure_by_figure() -> None:
    rows = {
        "dcp": row("dcp", blocked_s=4.0, lost_s=8.0),
        "dcp_staged": row("dcp_staged", blocked_s=6.0, lost_s=2.0),
        "torch": row("torch", load_s=3.0),
    }
    record = measure._with_ratios(row("ours", blocked_s=0.5, lost_s=-0.1), rows).record()
    assert record["dcp"]["ratio_blocked"] == 8.0
    assert record["dcp"]["ratio_lost"] == 2.0 / 1e-4  # nothing lost is not divided by
    assert record["torch"]["ratio_load"] == 3.0 and record["torch"]["ratio_each"] == 1.0
    assert "safetensors" not in record


def test_the_json_has_what_is_promised() -> None:
    record = measure._with_ratios(row("ours"), {"dcp": row("dcp")}).record()
    promised = {"blocked_s", "lost_s", "durable_s", "load_s", "extra_bytes", "cpu_s"}
    assert promised | {"bench", "method", "bytes", "threads", "first_lost_s", "right"} <= record.keys()
    assert {"ratio_lost", "ratio_durable", "ratio_load"} <= record["dcp"].keys()
    assert row("dcp").bar().values == {"lost": 1.0, "durable": 1.0, "cold load": 1.0}
    raw = RawRow(MIB, 0.5, 0.25, 0.8, 0.9).record()
    assert raw["method"] == "raw" and (raw["durable_share"], raw["load_share"]) == (0.8, 0.9)


def test_who_is_not_known_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(UsageError, match="nobody"):
        next(measure.measure([MIB], ["nobody"], [1], 1, None))


class Steps:
    """A training whose steps take what is given, by its own word."""

    def __init__(self, *seconds: float) -> None:
        self.left = list(seconds)

    def step(self) -> float:
        return self.left.pop(0)


class DoneAfter:
    def __init__(self, training: Steps) -> None:
        self._training = training

    def begin(self, number: int) -> None: ...
    def done(self) -> bool:
        return not self._training.left

    def durable_s(self) -> float | None:
        return 0.25

    def finish(self) -> None: ...


def test_what_steps_take_longer_is_lost_until_the_save_is_durable() -> None:
    training = Steps(0.3, 0.2, 0.2)
    found = measured_save(DoneAfter(training), training, 0, 0.2)  # type: ignore[arg-type]
    assert found["lost_s"] == pytest.approx(0.1 + found["blocked_s"], abs=1e-6)
    assert (found["worst_step_s"], found["durable_s"]) == (0.3, 0.25)
