"""Who keeps a call waiting, and how, by what is said while it happens: late, or stopped; and dumps of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pccl_py.observe
from pccl_py import Communicator, Config, Evicted, Master, PcclError, UsageError
from pccl_py.cli import main
from pccl_py.observe import Diagnosis, OperationNow
from tests.conftest import Spawn

from .logged import logged
from .peers import PEER, expect, together

# Stopped peers are not evicted while a test looks at them.
PATIENT = Config(heartbeat_ms=100, heartbeats_missed_max=300, waiting_notice_ms=500)
JOIN = PEER.replace("heartbeats_missed_max=10", "heartbeats_missed_max=300, waiting_notice_ms=500") + (
    'comm = Communicator(address, min_islands=2, config=config, transport="tcp")\nsay("id", comm.id)\n'
)
NAMED_S = 3.0


@pytest.fixture
def patient_master() -> Iterator[Master]:
    with Master("127.0.0.1:0", config=PATIENT) as master:
        yield master


def until(comm: Communicator, found: Callable[[Diagnosis], bool]) -> Diagnosis:
    began = time.monotonic()
    while not found(diagnosis := comm.diagnose()):
        assert time.monotonic() - began < NAMED_S, str(diagnosis)
        time.sleep(0.05)
    return diagnosis


def somebody_is_missing(diagnosis: Diagnosis) -> bool:
    return any(operation.missing for operation in diagnosis.operations)


def only(diagnosis: Diagnosis) -> OperationNow:
    assert len(diagnosis.operations) == 1, diagnosis
    return diagnosis.operations[0]


def line_about(caplog: pytest.LogCaptureFixture, words: str) -> str:
    return next(iter(logged(caplog, words)))


def test_who_computes_is_late_to_post(
    patient_master: Master, spawn: Spawn, caplog: pytest.LogCaptureFixture
) -> None:
    source = JOIN + "sys.stdin.readline(); comm.all_reduce(np.full(3, 2.0)); say('done')"
    process = spawn("-c", source, patient_master.address, stdin=subprocess.PIPE)
    with Communicator(patient_master.address, min_islands=2, config=PATIENT) as comm:
        other, array = int(expect(process, "id")), np.ones(3)
        work = comm.all_reduce(array, async_op=True)
        operation = only(until(comm, somebody_is_missing))
        assert (operation.late, operation.silent, operation.call) == ((other,), (), "all_reduce")
        line = line_about(caplog, "waiting in all_reduce")
        assert f"peer {other} " in line and "late to post" in line
        process.stdin.write("go\n")
        process.stdin.flush()
        work.wait(30)
        assert (array == 3).all() and comm.diagnose().operations == ()
        assert "committed" in [event.kind for event in comm.diagnose().events]
        expect(process, "done")


def test_who_is_stopped_in_a_call_is_named_within_seconds(
    patient_master: Master, spawn: Spawn, caplog: pytest.LogCaptureFixture
) -> None:
    source = JOIN + (
        "a = np.full(1 << 22, 2, np.float32); w = comm.all_reduce(a, async_op=True); time.sleep(0.3)\n"
        "say('posted'); w.wait(); say('sum', a.min(), a.max())"
    )
    process = spawn("-c", source, patient_master.address)
    with Communicator(patient_master.address, min_islands=2, config=PATIENT, transport="tcp") as comm:
        other = int(expect(process, "id"))
        expect(process, "posted")
        os.kill(process.pid, signal.SIGSTOP)
        try:
            stopped, array = time.monotonic(), np.ones(1 << 22, np.float32)
            work = comm.all_reduce(array, async_op=True)
            operation = only(until(comm, lambda d: any(operation.silent for operation in d.operations)))
            assert (operation.silent, operation.late) == ((other,), ()), operation
            assert [link.peer for link in until(comm, lambda d: bool(d.slow_links)).slow_links] == [other]
            assert time.monotonic() - stopped < NAMED_S
            line = line_about(caplog, "stopped or cut off")
            assert f"peer {other} " in line and "all_reduce" in line
        finally:
            os.kill(process.pid, signal.SIGCONT)
        work.wait(30)
        assert (array == 3).all() and expect(process, "sum") == "3.0 3.0"


def rows_by_peer(rows: list[dict[str, Any]], name: str) -> dict[int, list[dict[str, Any]]]:
    peers = {row["pid"]: row["args"]["sort_index"] for row in rows if row["name"] == "process_sort_index"}
    found: dict[int, list[dict[str, Any]]] = {peer: [] for peer in peers.values()}
    for row in rows:
        if row["name"] == name:
            found[peers[row["pid"]]].append(row)
    return found


@pytest.mark.stops_peers
def test_dumps_of_a_killed_run_merge(master: Master, spawn: Spawn, tmp_path: Path) -> None:
    config = Config(heartbeat_ms=100, heartbeats_missed_max=10, trace_dir=str(tmp_path))
    source = PEER + (
        f"config = Config(heartbeat_ms=100, heartbeats_missed_max=10, trace_dir={str(tmp_path)!r})\n"
        "comm = Communicator(address, min_islands=2, config=config)\n"
        "for _ in range(6): comm.all_reduce(np.ones(1000))\n"
        "w = comm.all_reduce(np.ones(1000), op='max', async_op=True, on_loss='raise')\n"
        "while not any(e.kind == 'posted' and e.key.use == 6 for e in comm.diagnose().events): pass\n"
        "say('id', comm.id); time.sleep(60)"
    )
    process = spawn("-c", source, master.address)
    with Communicator(master.address, min_islands=2, config=config) as comm:
        for _ in range(6):
            comm.all_reduce(np.ones(1000))
        other = int(expect(process, "id"))
        os.kill(process.pid, signal.SIGSTOP)
        work = comm.all_reduce(np.ones(1000), op="max", async_op=True, on_loss="raise")
        process.kill()
        with pytest.raises(PcclError):
            work.wait(30)
        own = comm.id
        comm.dump(tmp_path / "own.pccltrace")
    out = tmp_path / "out.json"
    assert main(["trace", str(tmp_path), "-o", str(out)]) == 0
    found = rows_by_peer(json.loads(out.read_text())["traceEvents"], "all_reduce")
    assert [row["args"]["end"] for row in found[own]] == ["committed"] * 6 + ["failed"]
    assert [row["args"]["end"] for row in found[other]] == ["committed"] * 6 + ["in flight"]
    for mine, theirs in zip(found[own][:6], found[other][:6], strict=True):  # one clock
        assert abs(mine["ts"] + mine["dur"] - theirs["ts"] - theirs["dur"]) < 200_000
    assert len(list(tmp_path.glob("*.pccltrace.1.pccltrace"))) == 1  # the failure's own dump


def test_a_signal_dumps_while_a_call_waits(master: Master, spawn: Spawn, tmp_path: Path) -> None:
    source = PEER + (
        f"pccl_py.observe.dump_on_signal(folder={str(tmp_path)!r})\n"
        "comm = Communicator(address, min_islands=2, config=config); say('in'); comm.all_reduce(np.ones(3))"
    )
    process = spawn("-c", source, master.address)
    with Communicator(master.address, min_islands=2) as comm:
        expect(process, "in")
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGUSR1)
        deadline = time.monotonic() + 5
        while not (found := [path for path in tmp_path.iterdir() if path.stat().st_size > 500]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        kinds = [event.kind for event in pccl_py.observe.read(found[0]).events]
        assert "posted" in kinds and "committed" not in kinds
        comm.all_reduce(np.ones(3))
    assert process.wait(20) == 0


def test_a_recorder_that_is_off(master: Master) -> None:
    with Communicator(master.address, config=Config(recorded_events=0)) as comm:
        comm.all_reduce(np.ones(3))
        assert comm.diagnose().events == () and comm.diagnose().responsive


def test_a_folder_that_is_not_there_costs_the_file_only(
    master: Master, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Communicator(master.address, config=Config(trace_dir=str(tmp_path / "absent"))) as comm:
        comm.all_reduce(np.ones(3))
        assert comm.diagnose().events[-1].kind == "committed"
    assert logged(caplog, "recorded in memory only")


def test_by_policy_few_who_keep_all_others_waiting_go() -> None:
    config = Config(heartbeat_ms=100, heartbeats_missed_max=50, waiting_notice_ms=200, straggler_ms=700)

    def play(comm: Communicator, index: int) -> tuple[int, ...]:
        if comm.rank != 2:
            return tuple(comm.all_reduce(np.ones(3)).contributors)
        time.sleep(2.5)  # alive, and late
        with pytest.raises(Evicted, match=r"kept .* waiting .*straggler_ms.*late to post"):
            comm.all_reduce(np.ones(3))
        return ()

    with Master(config=config) as master:
        assert sorted(together(master.address, 3, play)) == [(), (1, 2), (1, 2)]


def test_numbers_of_a_peer(master: Master) -> None:
    with Communicator(master.address, config=Config()) as comm:
        for _ in range(3):
            comm.all_reduce(np.ones(3))
        stats = comm.stats()
        assert (stats["operations_committed"], stats["operations_failed"], stats["links"]) == (3, 0, 0)
        assert all(isinstance(value, int | float) for value in stats.values())
        comm.show(loss=2.5, saved_at=time.time())
        deadline = time.monotonic() + 3
        while not (shown := master.report()["runs"][""]["members"][0]["figures"]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert shown.keys() == {"loss", "saved_at"} and shown["loss"] == 2.5
        with pytest.raises(UsageError, match="figures at most"):
            comm.show(**{f"number_{i}": 1.0 for i in range(40)})
