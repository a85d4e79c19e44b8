"""Two protected DiLoCo peers, one killed and started again: what is shared comes from the live one, what is
its own from its newest checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from pccl_py import Master
from tests.conftest import Spawn

from .test_diloco import Run

pytest.importorskip("torch")
MODULE = "tests.integration.protected_peer"


def test_a_killed_peer_resumes_part_by_part(master: Master, spawn: Spawn, tmp_path: Path) -> None:
    run = Run(spawn, master.address, MODULE)
    run.start("A", str(tmp_path), "--founders", "2", "--windows", "0")
    run.start("B", str(tmp_path), "--founders", "2", "--windows", "0", "--die-at", "14")
    run.until("window", "B", number=3)
    run.processes["B"].wait(30)
    saved = run.of("B", "saved")[-1]
    assert saved["step"] == saved["at"] == 12
    run.until("window", "A", number=8)  # goes on alone
    run.start("C", str(tmp_path / "nobody"), "--windows", "0")  # a newcomer without a checkpoint
    first = run.until("begins", "C")
    run.processes.pop("C").kill()
    run.processes["B, killed"] = run.processes.pop("B")
    run.said.pop("B")
    run.start("B", str(tmp_path), "--windows", "0")
    begins = run.until("begins", "B")
    (tmp_path / "end.part").write_text(str(begins["outer"] + 40))
    (tmp_path / "end.part").rename(tmp_path / "end")
    run.finish(killed={"B, killed"})

    assert first["told"]["model"][0] == "live peers" and "program" in first["told"]["inner"]
    told = begins["told"]
    for shared in ("model", "outer"):
        source, step, why = told[shared]
        assert (source, step) == ("live peers", begins["step"]) and f"outer step {begins['outer']}" in why
        assert "outer step 3 was here" in why
    for private in ("inner", "data", "rng"):
        source, step, why = told[private]
        assert (source, step) == ("checkpoint", 12) and "live peers" in why
    assert begins["at"] == 12 and begins["momentum"] == saved["momentum"]
    assert begins["model"] == begins["theta"] and begins["outer"] >= 8 and begins["step"] >= 32
    windows = {event["number"]: event["digest"] for event in run.of("A", "window")}
    assert windows[begins["outer"]] == begins["digest"]
    after = [event for event in run.of("B", "window") if event["number"] > begins["outer"]]
    assert len(after) > 3 and all(windows[event["number"]] == event["digest"] for event in after)
    ends = [run.of(name, "end")[-1] for name in ("A", "B")]
    assert ends[0]["digest"] == ends[1]["digest"] and [end["failed"] for end in ends] == [0, 0]


@pytest.mark.nightly
def test_all_peers_killed_and_started_again(master: Master, spawn: Spawn, tmp_path: Path) -> None:
    """Nobody lives: both take their newest checkpoints, and the further one's outer state is everybody's."""
    run = Run(spawn, master.address, MODULE)
    run.start("A", str(tmp_path), "--founders", "2", "--die-at", "19")
    run.start("B", str(tmp_path), "--founders", "2", "--die-at", "14")
    for name in ("A", "B"):
        run.processes[name].wait(40)
    with Master() as other:  # the first run's peers are forgotten there
        again = Run(spawn, other.address, MODULE)
        for name in ("A", "B"):
            again.start(name, str(tmp_path), "--founders", "2")
        begins = {name: again.until("begins", name) for name in ("A",)}
        again.finish(killed=set())
        begins["B"] = again.of("B", "begins")[-1]
    assert begins["A"]["told"]["model"][:2] == ["checkpoint", 18] and begins["A"]["at"] == 18
    assert begins["B"]["told"]["inner"][:2] == ["checkpoint", 12] and begins["B"]["at"] == 12
    assert begins["B"]["told"]["model"][0] == "live peers"
    assert begins["A"]["digest"] == begins["B"]["digest"]
    assert again.of("A", "end")[-1]["digest"] == again.of("B", "end")[-1]["digest"]
