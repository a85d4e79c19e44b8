"""The dashboard: what it serves, to whom, and that it shows a kill within a second."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from pccl_py import (
    Cancelled,
    Communicator,
    Config,
    ConnectError,
    Dashboard,
    Master,
    MismatchError,
    SharedState,
    UsageError,
)
from pccl_py.cli import main, top
from pccl_py.master.dashboard import AT_ONCE_MAX
from tests.conftest import Spawn
from tests.threads import in_threads

from .peers import PEER, QUICK, expect

Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture
def dashboard(master: Master) -> Iterator[Dashboard]:
    with Dashboard(master) as running:
        yield running


def ask(dashboard: Dashboard, path: str, method: str = "GET", **headers: str) -> Answer:
    connection = http.client.HTTPConnection(dashboard.address, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def report(dashboard: Dashboard) -> dict[str, Any]:
    status, headers, body = ask(dashboard, "/status.json")
    assert (status, headers["content-type"]) == (200, "application/json")
    found: dict[str, Any] = json.loads(body)
    return found


def until(dashboard: Dashboard, seen: Callable[[dict[str, Any]], bool], within_s: float) -> dict[str, Any]:
    began = time.monotonic()
    while not seen(found := report(dashboard)):
        assert time.monotonic() - began < within_s, found
        time.sleep(0.02)
    return found


def test_the_page_and_its_parts_are_served(dashboard: Dashboard) -> None:
    for path, word in (
        ("/", b"dashboard.js"),
        ("/dashboard.js", b"status.json"),
        ("/dashboard.css", b"table"),
    ):
        status, headers, body = ask(dashboard, path)
        assert status == 200 and word in body
        assert "default-src 'none'" in headers["content-security-policy"]
    assert ask(dashboard, "/", "HEAD")[2] == b""
    assert ask(dashboard, "/../embedded.py")[0] == 404


def test_it_changes_nothing(dashboard: Dashboard) -> None:
    assert {ask(dashboard, "/status.json", method)[0] for method in ("POST", "PUT", "DELETE")} == {501}


def test_another_sites_name_for_this_host_is_refused(dashboard: Dashboard) -> None:
    assert ask(dashboard, "/status.json", Host="evil.example")[0] == 403
    assert ask(dashboard, "/status.json", Host="localhost:80")[0] == 200
    assert ask(dashboard, "/status.json", Host="[::1]:80")[0] == 200


def test_beyond_loopback_only_where_it_is_asked_for(master: Master) -> None:
    with pytest.raises(UsageError, match="by anybody"):
        Dashboard(master, "0.0.0.0:0")
    with pytest.raises(UsageError, match="HOST:PORT"):
        Dashboard(master, "nonsense")
    with Dashboard(master, "0.0.0.0:0", anywhere=True) as open_to_all:
        port = open_to_all.address.rpartition(":")[2]
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
        connection.request("GET", "/status.json", headers={"Host": "host.example"})
        assert connection.getresponse().status == 200
        connection.close()


def test_connections_that_say_nothing_do_not_add_up(dashboard: Dashboard) -> None:
    host, _, port = dashboard.address.rpartition(":")
    idle = [socket.create_connection((host, int(port)), 10) for _ in range(AT_ONCE_MAX)]
    try:
        with socket.create_connection((host, int(port)), 10) as one_more:
            assert one_more.recv(1) == b""  # closed at once
    finally:
        for one in idle:
            one.close()
    over = time.monotonic() + 5  # by then their threads have seen that they are gone
    while True:
        try:
            assert report(dashboard)["runs"]
            break
        except ConnectionError:
            assert time.monotonic() < over
            time.sleep(0.02)


def test_a_taken_port_is_told(master: Master, dashboard: Dashboard) -> None:
    with pytest.raises(ConnectError, match="cannot serve"):
        Dashboard(master, dashboard.address)


def test_members_commits_and_a_kill_are_shown_within_a_second(
    master: Master, dashboard: Dashboard, spawn: Spawn
) -> None:
    source = PEER + (
        "comm = Communicator(address, island='<b>east', min_islands=2, config=config)\n"
        "say('in', comm.id)\n"
        "while True: comm.all_reduce(np.ones(1000))"
    )
    process = spawn("-c", source, master.address)
    with Communicator(master.address, min_islands=2, config=QUICK) as comm:
        other = int(expect(process, "in"))
        for _ in range(20):
            comm.all_reduce(np.ones(1000))
        run = report(dashboard)["runs"][""]
        members = {member["peer"]: member for member in run["members"]}
        assert members.keys() == {comm.id, other}
        assert (members[other]["island"], members[other]["process"]) == ("<b>east", process.pid)
        assert run["commits"] >= 19 and run["failures"] == 0 and run["phase"] == "serving"
        assert sorted(run["rings"]["0"]) == sorted(members)
        os.kill(process.pid, signal.SIGKILL)
        found = until(dashboard, lambda found: len(found["runs"][""]["members"]) == 1, 1.0)
        assert found["runs"][""]["removed"] == 1
        assert any(f"peer {other}" in text for _, _, text in found["events"])
        ((age_s, kind, why),) = found["runs"][""]["recent_failures"]
        assert 0 <= age_s < 2 and kind == "peer gone" and f"peer {other} is gone" in why
        assert f"0 s ago, peer gone: peer {other} is gone" in top.text(found)


@pytest.mark.stops_peers
def test_evictions_and_operations_that_failed_are_shown_and_who_left_is_not(
    master: Master, dashboard: Dashboard, spawn: Spawn
) -> None:
    source = PEER + (
        "comm = Communicator(address, min_islands=2, config=config); say('in', comm.id); sys.stdin.readline()"
    )
    process = spawn("-c", source, master.address, stdin=subprocess.PIPE)
    with Communicator(master.address, min_islands=2, config=QUICK) as comm:
        other = int(expect(process, "in"))
        work = comm.all_reduce(np.ones(3), tag=7, async_op=True)
        work.cancel()
        with pytest.raises(Cancelled):
            work.wait(20)
        os.kill(process.pid, signal.SIGSTOP)

        def kinds(found: dict[str, Any]) -> list[str]:
            return [kind for _, kind, _ in found["runs"][""]["recent_failures"]]

        found = until(dashboard, lambda found: len(kinds(found)) == 2, 10)
        assert kinds(found) == ["evicted", "operation failed"]  # the newest first
        evicted, failed = (why for _, _, why in found["runs"][""]["recent_failures"])
        assert f"peer {other} was silent" in evicted and "tag 7" in failed and "cancelled" in failed
        process.kill()
    assert kinds(until(dashboard, lambda found: not found["runs"][""]["members"], 5)) == kinds(found)


def test_who_keeps_an_operation_waiting_is_shown(spawn: Spawn) -> None:
    patient = Config(heartbeat_ms=100, heartbeats_missed_max=300, waiting_notice_ms=300)
    source = PEER.replace("heartbeats_missed_max=10", "heartbeats_missed_max=300, waiting_notice_ms=300") + (
        "comm = Communicator(address, min_islands=2, config=config); say('in', comm.id); sys.stdin.readline()"
    )
    with Master(config=patient) as master, Dashboard(master) as dashboard:
        process = spawn("-c", source, master.address, stdin=subprocess.PIPE)
        with Communicator(master.address, min_islands=2, config=patient) as comm:
            other = int(expect(process, "in"))
            work = comm.all_reduce(np.ones(3), async_op=True)
            found = until(
                dashboard, lambda found: any(one["hindrances"] for one in found["runs"][""]["operations"]), 3
            )
            (operation,) = found["runs"][""]["operations"]
            assert operation["call"] == "all_reduce" and operation["absent"] == [other]
            assert [tuple(one[:2]) for one in operation["hindrances"]] == [(other, "late")]
            assert f"peer {other}: late to post" in top.text(found)
            process.kill()
            work.wait(30)


def test_top_shows_it_once(dashboard: Dashboard, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", dashboard.url, "--once"]) == 0
    assert "0 members" in capsys.readouterr().out
    assert main(["top", dashboard.address, "--once", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][""]["members"] == []


def test_top_without_a_dashboard(free_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", f"127.0.0.1:{free_port}", "--once"]) == 1
    assert "master --http" in capsys.readouterr().err


def test_a_master_that_has_stopped_answers_no_more(master: Master, dashboard: Dashboard) -> None:
    master.stop()
    status, _, body = ask(dashboard, "/status.json")
    assert status == 503 and b"stopped" in body


@pytest.mark.skipif(find_spec("prometheus_client") is None, reason="prometheus_client is an extra")
def test_metrics_are_what_prometheus_reads(master: Master, dashboard: Dashboard) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    with Communicator(master.address, config=QUICK) as comm:
        comm.all_reduce(np.ones(3))
        status, headers, body = ask(dashboard, "/metrics")
        assert status == 200 and headers["content-type"].startswith("text/plain")
        values = {
            sample.name: (sample.value, sample.labels)
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }
        assert values["pccl_members"] == (1.0, {"run": ""})
        assert values["pccl_member_silent_seconds"][1]["peer"] == str(comm.id)
        assert values["pccl_views_total"][0] >= 1


@pytest.mark.skipif(find_spec("prometheus_client") is not None, reason="it is installed here")
def test_metrics_say_what_they_need(dashboard: Dashboard) -> None:
    status, _, body = ask(dashboard, "/metrics")
    assert status == 501 and b"pip install" in body


def test_a_failure_whose_words_were_cut_within_a_letter_is_reported(
    master: Master, dashboard: Dashboard
) -> None:
    """What is kept of them is so many bytes, of which one of two such texts has half a letter at the end."""

    def mismatched(number: int) -> list[int]:
        lengths = []
        with Communicator(master.address, min_islands=2, config=QUICK) as comm:
            for before in ("", "a"):
                name = ("ü" * 115, before + "é" * 115)[number]
                state = SharedState({name: np.zeros(3, np.float32)})
                with pytest.raises(MismatchError) as told:
                    comm.sync_shared_state(state)
                lengths.append(len(str(told.value).encode()))
            meet.wait(20)
        return lengths

    meet = threading.Barrier(2)
    for lengths in in_threads([partial(mismatched, number) for number in range(2)]):
        assert min(lengths) >= 500
    shown = [why for _, _, why in report(dashboard)["runs"][""]["recent_failures"]]
    assert len(shown) == 2 and all("é" * 50 in why and "ü" * 50 in why for why in shown)
    assert any("\ufffd" in why for why in shown)
    assert [why for _, _, why in master.report()["runs"][""]["recent_failures"]] == shown
