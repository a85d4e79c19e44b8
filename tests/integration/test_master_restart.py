"""A master that is killed and started again: the run goes on, and no value is lost."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pccl_py import Communicator, Config, Master, NoQuorumError, SharedState, UsageError
from tests.conftest import Spawn
from tests.ports import free_port
from tests.threads import in_threads

from .logged import logged
from .peers import PEER, expect

CONFIG = Config(heartbeat_ms=100, heartbeats_missed_max=20)


class Supervised:
    """A master in a process, which whoever watches over it would start again."""

    def __init__(self, spawn: Spawn, state_dir: Path | None) -> None:
        self._spawn = spawn
        self._options = ["--listen", f"127.0.0.1:{free_port()}"]
        self.address = self._options[1]
        if state_dir is not None:
            self._options += ["--state-dir", str(state_dir)]
        self.process = self.start()

    def start(self) -> subprocess.Popen[str]:
        process = self._spawn("-m", "pccl_py", "master", *self._options)
        expect(process, "pccl_py master at")
        return process

    def restart(self, *, away_s: float = 0.0) -> None:
        self.process.kill()
        self.process.wait()
        time.sleep(away_s)
        self.process = self.start()


@pytest.mark.parametrize("store", [True, False])
def test_trainers_and_keepers_go_on(spawn: Spawn, tmp_path: Path, store: bool) -> None:
    """Each role finds its own roster again, from its own record."""
    master = Supervised(spawn, tmp_path if store else None)
    met = threading.Barrier(5)

    def play(role: str, digit: float) -> Callable[[], list[float]]:
        def peer() -> list[float]:
            with Communicator(master.address, role=role, min_islands=2, config=CONFIG) as comm:
                sums = []
                for _ in range(2):
                    values = np.full(5000, digit)
                    comm.all_reduce(values)
                    sums.append(float(values[0]))
                    met.wait(40)  # all have reduced; then the master has been started again
                    met.wait(40)
                return sums

        return peer

    def watch() -> list[float]:
        met.wait(40)
        assert len(list(tmp_path.glob("*.run"))) == (2 if store else 0)
        master.restart()
        for _ in range(3):
            met.wait(40)
        return []

    trainers, keepers = [play("trainer", 1.0)] * 2, [play("keeper", 10.0)] * 2
    results = in_threads([*trainers, *keepers, watch])
    assert results == [[2.0, 2.0], [2.0, 2.0], [20.0, 20.0], [20.0, 20.0], []]


@pytest.mark.parametrize("store", [True, False])
def test_operations_wait_for_a_killed_master_and_go_on(spawn: Spawn, tmp_path: Path, store: bool) -> None:
    """Killed three times while three peers reduce without a pause: every sum is right, all hold the same."""
    master = Supervised(spawn, tmp_path / "a" / "views" if store else None)
    begun, over = threading.Event(), threading.Event()
    done = [0, 0, 0]

    def play(index: int) -> Callable[[], int]:
        def peer() -> int:
            with Communicator(master.address, min_islands=3, start_rank=index, config=CONFIG) as comm:
                while True:
                    done[index] += 1
                    last = float(index == 0 and over.is_set())
                    values = np.append(np.full(5000, done[index] * (index + 1.0)), last)
                    info = comm.all_reduce(values)
                    assert (values[:-1] == done[index] * 6).all() and len(info.contributors) == 3
                    begun.set()
                    if values[-1]:
                        return done[index]

        return peer

    def watch() -> int:
        assert begun.wait(20)
        try:
            for away_s in (0.0, 0.3, 0.0):
                before = done[0]
                master.restart(away_s=away_s)
                while done[0] < before + 100:
                    time.sleep(0.005)
        finally:
            over.set()
        return 0

    counts = in_threads([play(0), play(1), play(2), watch])[:3]
    assert len(set(counts)) == 1 and counts[0] > 300


def test_a_member_that_died_with_the_master_is_out_and_newcomers_come_in(
    spawn: Spawn, tmp_path: Path
) -> None:
    master = Supervised(spawn, tmp_path)
    victim = spawn("-c", PEER + DIES_WITH_THE_MASTER, master.address)
    with Communicator(master.address, min_islands=2, config=CONFIG) as comm:
        comm.all_reduce(np.ones(3))
        victim.kill()
        master.restart()
        values = np.ones(3)
        info = comm.all_reduce(values, on_loss="retry")  # the store's word is enough: no majority is here
        assert (values == 1).all() and info.contributors == (comm.id,)
        joiner = spawn("-c", PEER + JOINS, master.address)
        while not comm.update_topology():
            time.sleep(0.02)
        state = SharedState({"x": np.full(100, 7.0)}, 3)
        comm.sync_shared_state(state)
        assert expect(joiner, "took") == "7.0"
        assert comm.world_size == 2
        comm.all_reduce(values)
        assert (values == 2).all()
    assert joiner.wait(20) == 0


DIES_WITH_THE_MASTER = """
with Communicator(address, min_islands=2, config=config) as comm:
    comm.all_reduce(np.ones(3))
    comm.all_reduce(np.ones(3))
"""

JOINS = """
with Communicator(address, config=config) as comm:
    state = SharedState({"x": np.zeros(100)})
    comm.sync_shared_state(state)
    say("took", state.tensors["x"][0])
    comm.all_reduce(np.ones(3))
"""


def test_whoever_waits_at_the_door_meanwhile_comes_in(spawn: Spawn, tmp_path: Path) -> None:
    master = Supervised(spawn, tmp_path)
    with Communicator(master.address, config=CONFIG) as comm:
        joiner = spawn("-c", PEER + JOINS, master.address)
        while not comm.waiting:
            comm.all_reduce(np.ones(1))
        master.restart()
        comm.all_reduce(np.ones(1))
        while comm.world_size < 2:
            comm.update_topology()
            time.sleep(0.02)
        comm.sync_shared_state(SharedState({"x": np.full(100, 7.0)}, 3))
        assert expect(joiner, "took") == "7.0"
        comm.all_reduce(np.ones(3))
    assert joiner.wait(20) == 0


def test_without_a_store_a_minority_hears_what_to_do(spawn: Spawn) -> None:
    """Others of the last view may go on elsewhere: nobody can tell, so nobody goes on alone."""
    master = Supervised(spawn, None)
    others = [spawn("-c", PEER + DIES_WITH_THE_MASTER.replace("=2", "=3"), master.address) for _ in range(2)]
    with Communicator(master.address, min_islands=3, config=CONFIG) as comm:
        comm.all_reduce(np.ones(3))
        master.process.kill()  # before it can learn that the others have gone
        master.process.wait()
        for other in others:
            other.kill()
        master.process = master.start()
        with pytest.raises(NoQuorumError, match="1 of 3 islands of the last view; .* call rejoin\\(\\) here"):
            comm.all_reduce(np.ones(3))
        again = [spawn("-c", PEER + DIES_WITH_THE_MASTER.replace("=2", "=3"), master.address) for _ in "23"]
        until_heard(comm.rejoin)  # what the text says: with those that were started again
        for _ in range(2):
            assert len(comm.all_reduce(np.ones(3)).contributors) == 3
        assert [peer.wait(20) for peer in again] == [0, 0]


def until_heard(join: Callable[[], None]) -> None:
    """Once those that heard of it have gone, the master begins a new run."""
    while True:
        try:
            return join()
        except NoQuorumError:
            time.sleep(0.1)


def test_one_folder_has_one_master(tmp_path: Path) -> None:
    with Master(state_dir=tmp_path), pytest.raises(UsageError, match="is another master's, which still runs"):
        Master(state_dir=tmp_path)
    with Master(state_dir=tmp_path):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot make it"):
        Master(state_dir=tmp_path / "file" / "below")


def test_records_that_cannot_be_read_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "a.run").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "b.run").mkdir()
    os.mkfifo(tmp_path / "c.run")
    with open(tmp_path / "d.run", "w") as long:
        long.truncate(65 << 20)
    with Master(state_dir=tmp_path) as master, Communicator(master.address, config=CONFIG) as comm:
        comm.all_reduce(np.ones(1))
    lines = logged(caplog, "of the store cannot be read: ", 5)
    unread = f"a record of the store cannot be read: {tmp_path}"
    wanted = [
        "4 of 4 records of the store cannot be read: ",
        f"{unread}/a.run: it is a symbolic link",
        f"{unread}/b.run: it is no regular file",
        f"{unread}/c.run: it is no regular file",
        f"{unread}/d.run: 68157440 bytes are more than any record has",
    ]
    for line in wanted:
        assert any(one.startswith(line) for one in lines), (line, lines)


def test_damaged_records_are_left_alone(tmp_path: Path) -> None:
    with Master(state_dir=tmp_path) as master, Communicator(master.address, config=CONFIG) as comm:
        comm.all_reduce(np.ones(1))
        (record,) = tmp_path.glob("*.run")
        bytes_ = record.read_bytes()
    for at in range(0, len(bytes_), 7):
        damaged = bytearray(bytes_)
        damaged[at] ^= 1 << at % 8
        record.write_bytes(damaged)
        with Master(state_dir=tmp_path) as master, Communicator(master.address, config=CONFIG) as comm:
            comm.all_reduce(np.ones(1))


def test_another_master_takes_over_at_another_address(spawn: Spawn, tmp_path: Path) -> None:
    """Peers know both addresses; the second one starts only when the first one is gone."""
    first, second = free_port(), free_port()
    options = ("-m", "pccl_py", "master", "--state-dir", str(tmp_path), "--listen")
    process = spawn(*options, f"127.0.0.1:{first}")
    expect(process, "pccl_py master at")
    address = f"127.0.0.1:{first}, 127.0.0.1:{second}"
    with Communicator(address, config=CONFIG) as comm:
        comm.all_reduce(np.ones(1))
        process.kill()
        process.wait()
        expect(spawn(*options, f"127.0.0.1:{second}"), "pccl_py master at")
        values = np.ones(1)
        comm.all_reduce(values)
        comm.update_topology()
        assert values[0] == 1


# Its thread waits for the GIL in the store while the last reference to the master goes.
DROPPED = """
import faulthandler, threading
from pccl_py import Communicator, Config, _core
faulthandler.dump_traceback_later(20, exit=True)
entered = threading.Event()
class Store:
    def load(self): return []
    def keep(self, run_name, record):
        entered.set()
        threading.Event().wait(0.3)
    def forget(self, run_name): pass
timing = Config.load().apply(_core.Timing())
master = _core.Master("127.0.0.1:0", b"", False, False, timing, store=Store())
address = master.address
def join():
    try: Communicator(address)
    except Exception: pass
threading.Thread(target=join, daemon=True).start()
entered.wait()
del master
print("dropped", flush=True)
"""


def test_a_master_that_is_dropped_while_its_store_is_busy(spawn: Spawn) -> None:
    expect(spawn("-c", DROPPED), "dropped")


NEWCOMER = """
comm = Communicator(address, config=config)
say("in")
while comm.world_size < 4: comm.update_topology()
say("world", comm.world_size)
comm.all_reduce(np.ones(1))  # nobody leaves before all have seen it
"""


def test_newcomers_that_are_faster_than_the_members_begin_no_other_run(spawn: Spawn) -> None:
    supervised = Supervised(spawn, None)
    member = PEER + "comm = Communicator(address, min_islands=2, config=config)\nsay('in')\n"
    member += "while comm.world_size < 4: comm.update_topology()\nsay('world', comm.world_size)\n"
    member += "comm.all_reduce(np.ones(1))\n"
    members = [spawn("-c", member, supervised.address) for _ in range(2)]
    for process in members:
        expect(process, "in")
    supervised.process.kill()
    supervised.process.wait()
    newcomers = [spawn("-c", PEER + NEWCOMER, supervised.address) for _ in range(2)]
    supervised.process = supervised.start()
    for process in (*members, *newcomers):
        assert expect(process, "world") == "4"
