"""Quantized, streaming and delayed DiLoCo on processes: one is killed while an average travels, one joins."""

from __future__ import annotations

import numpy as np
import pytest

from pccl_py import Master
from tests.conftest import Spawn

from .diloco_peer import PULL, H, start, target
from .family_peer import KINDS
from .test_diloco import Run

MODULE = "tests.integration.family_peer"


@pytest.mark.parametrize(
    "kind",
    [
        *("gap", "streaming int4"),
        *(pytest.param(kind, marks=pytest.mark.nightly) for kind in ("async", "int4", "int8", "streaming")),
    ],
)
def test_a_peer_dies_under_way_and_one_joins(spawn: Spawn, master: Master, kind: str) -> None:
    windows = 16
    run = Run(spawn, master.address, MODULE)
    for name, options in {"A": (), "B": (), "C": ("--die-in-flight", "3")}.items():
        dies = options if KINDS[kind][1].keys() & {"num_fragments"} or "async gap".count(kind) else ()
        run.start(name, kind, "--windows", str(windows), "--founders", "3", *dies)
    run.start("J", kind, "--windows", str(windows), "--wait")
    run.until("ready", "J")
    run.until("window", "A", number=5)
    if "int" in kind and "streaming" not in kind:
        run.processes["C"].kill()
    run.go("J")
    run.finish(killed={"C"})

    assert [e["number"] for e in run.of("A", "window")] == list(range(1, windows + 1)), "a window was lost"
    digests = run.digests()
    assert all(len(found) == 1 for found in digests.values()), digests
    ends = [run.of(name, "end")[0] for name in "ABJ"]
    assert len({end["digest"] for end in ends}) == 1 and ends[0]["windows"] >= windows
    members = run.contributors()
    assert members[1] == {"A", "B", "C"} and members[windows] == {"A", "B", "J"}
    weights = {e["number"]: e["weight"] for e in run.of("A", "window")}
    assert weights[3] == 3.0 and weights[windows] == 3.0
    if kind == "async":
        np.testing.assert_allclose(_last(run, members)[:50], ends[0]["theta"], rtol=1e-3, atol=1e-4)


def _last(run: Run, members: dict[int, set[str]]) -> np.ndarray:  # type: ignore[type-arg]
    """theta_{k} = theta_{k-1} - 0.7 g, g of the window that began two outer steps ago; who joins brings
    nothing to the average that was under way."""
    size, joined = 1000, run.of("J", "begins")[0]["window"]
    states = [start(size)]
    for number in sorted(members):
        begin = states[max(0, number - 2)]
        deltas = []
        for name in sorted(members[number]):
            if name == "J" and number == joined + 1:
                continue
            local = begin.copy()
            for _ in range(H):
                local -= PULL * (local - target(name, size))
            deltas.append(begin - local)
        states.append(states[-1] - 0.7 * np.mean(deltas, axis=0))
    # finalize(): the average that was under way, and the steps of nobody
    begin = states[-2]
    deltas = [begin - (target(n, size) + (begin - target(n, size)) * (1 - PULL) ** H) for n in "ABJ"]
    return np.asarray(states[-1] - 0.7 * np.mean(deltas, axis=0))
