"""Several masters and a real etcd: one serves, the next one takes over, and no value is lost."""

from __future__ import annotations

import logging
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pccl_py import Communicator, Config, EtcdStore, Master, UsageError
from pccl_py.master.etcd_answers import Object, text64
from tests.conftest import Spawn
from tests.etcd_server import EtcdServer, free_port
from tests.threads import in_threads

from .peers import PEER, expect

LEASE_S = 2
CONFIG = Config(heartbeat_ms=100, heartbeats_missed_max=10)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    yield server
    server.stop()


class Masters:
    """Of one prefix. `address`: what peers dial."""

    def __init__(
        self, spawn: Spawn, etcd: EtcdServer, prefix: str, count: int, lease_s: int = LEASE_S
    ) -> None:
        self._spawn, self._etcd, self._prefix, self._lease_s = spawn, etcd, prefix, lease_s
        self._ports = [free_port() for _ in range(count)]
        self.address = ", ".join(f"127.0.0.1:{port}" for port in self._ports)

    def start(self, index: int, word: str | None = "pccl_py master at") -> subprocess.Popen[str]:
        options = [
            "--etcd",
            self._etcd.endpoint,
            "--etcd-prefix",
            self._prefix,
            "--lease-s",
            str(self._lease_s),
        ]
        listen = f"127.0.0.1:{self._ports[index]}"
        process = self._spawn(
            "-m", "pccl_py", "master", "--listen", listen, *options, stderr=subprocess.STDOUT
        )
        if word is not None:
            expect(process, word)
        return process


class Reducing:
    """Two peers that reduce without a pause until they are told; each result is checked."""

    def __init__(self, address: str) -> None:
        self.done, self.longest = 0, 0.0
        self._address, self._over = address, threading.Event()

    def play(self, meanwhile: Callable[[], None]) -> None:
        def watch() -> int:
            try:
                self.wait_for(20)
                meanwhile()
                self.wait_for(20)
            finally:
                self._over.set()
            return 0

        counts = in_threads([lambda: self._peer(0), lambda: self._peer(1), watch])
        assert counts[0] == counts[1] > 40

    def wait_for(self, more: int) -> None:
        before, until = self.done, time.monotonic() + 20
        while self.done < before + more:
            assert time.monotonic() < until, "operations do not go on"
            time.sleep(0.005)

    def _peer(self, index: int) -> int:
        turn = 0
        with Communicator(self._address, min_islands=2, start_rank=index, config=CONFIG) as comm:
            while True:
                turn += 1
                last = float(index == 0 and self._over.is_set())
                values = np.append(np.full(1000, turn * (index + 1.0)), last)
                began = time.monotonic()
                info = comm.all_reduce(values)
                assert (values[:-1] == turn * 3).all() and len(info.contributors) == 2
                if index == 0:
                    self.done, self.longest = turn, max(self.longest, time.monotonic() - began)
                if values[-1]:
                    return turn


def test_a_standby_follows_a_killed_master(spawn: Spawn, etcd: EtcdServer) -> None:
    """The run goes on within the lease and a second."""
    masters = Masters(spawn, etcd, "killed", 2)
    serving = masters.start(0)
    standby = masters.start(1, None)
    reducing = Reducing(masters.address)

    def kill() -> None:
        time.sleep(0.7)  # it imports, and stands by
        serving.kill()
        expect(standby, "pccl_py master at")

    reducing.play(kill)
    assert reducing.longest <= LEASE_S + 1


def test_a_stopped_master_wakes_fenced(spawn: Spawn, etcd: EtcdServer) -> None:
    """Whatever waited for it in its sockets, it answers nothing of it."""
    masters = Masters(spawn, etcd, "stopped", 2)
    serving = masters.start(0)

    def stop() -> None:
        serving.send_signal(signal.SIGSTOP)
        masters.start(1)
        reducing.wait_for(20)
        serving.send_signal(signal.SIGCONT)
        said = serving.communicate(timeout=10)[0]
        assert serving.returncode == 1
        assert "view 1 of 2 peers" in said.partition("serves no more")[0]
        assert "start this one again to stand by" in said
        assert "view" not in said.partition("serves no more")[2]

    reducing = Reducing(masters.address)
    reducing.play(stop)


@pytest.mark.nightly
def test_etcd_away_for_a_moment_and_for_longer(spawn: Spawn, etcd: EtcdServer) -> None:
    """Without etcd operations go on until the lease is over; when etcd is back, the next master goes on."""
    masters = Masters(spawn, etcd, "away", 1)
    serving = masters.start(0)

    def away() -> None:
        etcd.pause()
        try:
            reducing.wait_for(20)
            time.sleep(0.8)
            etcd.go_on()
            time.sleep(0.7)
            reducing.wait_for(20)
            etcd.pause()
            said = serving.communicate(timeout=10)[0]
            assert serving.returncode == 1 and "lease" in said
        finally:
            etcd.go_on()
        masters.start(0)

    reducing = Reducing(masters.address)
    reducing.play(away)


@pytest.mark.nightly
def test_a_member_of_etcd_dies(spawn: Spawn, tmp_path: Path) -> None:
    """The leader of three: a new one is elected within a lease of 5 s, and the master goes on."""
    etcd = EtcdServer(tmp_path, members=3)
    try:
        masters = Masters(spawn, etcd, "three", 1, lease_s=5)
        serving = masters.start(0)

        def kill() -> None:
            etcd.processes[etcd.leader()].kill()
            time.sleep(7)
            assert serving.poll() is None

        reducing = Reducing(masters.address)
        reducing.play(kill)
        assert reducing.longest < 1
    finally:
        etcd.stop()


VICTIM = """
with Communicator(address, min_islands=2, config=config) as comm:
    comm.all_reduce(np.ones(3))
    comm.all_reduce(np.ones(3))
"""


@pytest.mark.parametrize("back", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_a_view_that_cannot_be_kept_is_told_to_nobody(spawn: Spawn, etcd: EtcdServer, back: bool) -> None:
    """A peer dies while etcd is away: the view without it waits for etcd, or for the next master."""
    masters = Masters(spawn, etcd, f"a view {back}", 1)
    serving = masters.start(0)
    victim = spawn("-c", PEER + VICTIM, masters.address)
    with Communicator(masters.address, min_islands=2, config=CONFIG) as comm:
        comm.all_reduce(np.ones(3))
        etcd.pause()
        try:
            victim.kill()
            values = np.ones(3)
            work = comm.all_reduce(values, async_op=True)
            time.sleep(0.7)
            assert not work.is_completed()
            if not back:
                said = serving.communicate(timeout=10)[0]
                assert serving.returncode == 1 and "view 2" not in said.partition("serves no more")[2]
        finally:
            etcd.go_on()
        if not back:
            masters.start(0)
        info = work.wait()
        assert (values == 1).all() and info.contributors == (comm.id,)
        assert not back or serving.poll() is None


def test_a_master_that_ends_hands_over_at_once(etcd: EtcdServer, caplog: pytest.LogCaptureFixture) -> None:
    """Embedded masters: what the first one kept is what the second one finds."""
    caplog.set_level(logging.INFO, "pccl_py")
    ports = [free_port(), free_port()]
    address = ", ".join(f"127.0.0.1:{port}" for port in ports)
    values = np.ones(3)
    first = Master(f"127.0.0.1:{ports[0]}", store=EtcdStore(etcd.endpoint, prefix="hand over", lease_s=60))
    with Communicator(address, config=CONFIG) as comm:
        comm.all_reduce(values)
        began = time.monotonic()
        first.stop()
        store = EtcdStore(etcd.endpoint, prefix="hand over", lease_s=60)
        with Master(f"127.0.0.1:{ports[1]}", store=store) as second:
            while comm.id not in [peer for peer, _, _ in second.status()["peers"]]:
                assert time.monotonic() - began < 10
                time.sleep(0.01)
            comm.all_reduce(values)
            assert second.fenced == "" and "waiting to be the master" not in caplog.text


class Told:
    """Whoever serves by a lease."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.why = ""

    def serve_until(self, monotonic_s: float) -> None:
        self.ends.append(monotonic_s)

    def fence(self, why: str) -> None:
        self.why = why


def test_the_store_of_one_who_is_no_longer_elected(etcd: EtcdServer) -> None:
    old, new = (EtcdStore(etcd.endpoint, prefix="fence", lease_s=60, name=name) for name in ("old", "new"))
    assert old.campaign() and old.load() == []
    assert old.keep("", b"1") is None and old.keep("other", b"2") is None and old.keep("", b"3") is None
    told = Told()
    old.attach(told)
    assert old._lease is not None
    old._lease.give_back()  # as if it had ended at etcd
    assert new.campaign() and sorted(new.load()) == [b"2", b"3"]
    assert new.keep("", b"4") is None
    why = old.keep("", b"5")
    assert why is not None and why.endswith("has its runs now: new")
    old.forget("")  # nobody's any more
    last = EtcdStore(etcd.endpoint, prefix="fence", lease_s=60)
    new.forget("other")
    new.close()
    assert last.campaign() and last.load() == [b"4"]
    last.close()
    assert told.ends and told.ends[0] > time.monotonic() + 30


def test_a_request_that_was_held_up_undoes_no_later_one(etcd: EtcdServer) -> None:
    store = EtcdStore(etcd.endpoint, prefix="late", lease_s=60)
    assert store.campaign() and store.keep("", b"1") is None
    late = store._ours(store._key(""))
    assert store.keep("", b"2") is None
    put: Object = {"request_put": {"key": text64(store._key("")), "value": text64(b"1")}}
    assert not store._transaction(late, put, [], time.monotonic() + 5).succeeded
    store.close()


def test_two_places_for_one_state(tmp_path: Path) -> None:
    store: Any = EtcdStore("http://127.0.0.1:1")
    with pytest.raises(UsageError, match="two places"):
        Master(store=store, state_dir=tmp_path)
