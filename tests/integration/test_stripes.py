"""Links whose stripes die one by one under real processes: sums stay right, in their first attempt and in the
same view, while one stripe lives.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from pccl_py import Communicator, Config, Master

from .peers import PEER, expect, together

# A thread that ends one data socket after the other, while more than `spare` live.
KILLING = """
import contextlib, os, random, socket
def data_sockets(comm):
    "Duplicates of the descriptors of all stripes."
    master, found = int(address.rsplit(":", 1)[1]), []
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink("/proc/self/fd/" + name).startswith("socket:"): continue
            one = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        try:
            if one.getpeername()[1] != master:
                found.append(one)
                continue
        except OSError:
            pass
        one.close()
    return found
def kill_now_and_then(comm, stop, killed, spare=2, shortest=0.005):
    while not stop.wait(random.uniform(shortest, 0.03)):
        stripes = {peer.id: peer.link.stripes for peer in comm.peers() if peer.link is not None}
        found = data_sockets(comm)
        if found and all(count > spare for count in stripes.values()):
            with contextlib.suppress(OSError):  # it broke by itself
                random.choice(found).shutdown(socket.SHUT_RDWR)
                killed.append(1)
        for one in found:
            one.close()
"""

# ADDRESS PEERS ROUNDS IN_PLACE HOW: sums, while stripes die.
KILLER = (
    PEER
    + KILLING
    + """
peers, rounds, in_place, how = *map(int, sys.argv[2:5]), sys.argv[5]
options = {"ring": {"algorithm": "ring"}, "direct": {"algorithm": "direct"}, "auto": {},
           "int8": {"quantization": "int8"}, "weighted": {"op": "avg"}}[how]
config = Config(heartbeats_missed_max=20, stripes=5)
with Communicator(address, min_islands=peers, config=config) as comm:
    say("in", comm.id)
    data = np.empty(1 << 20, np.float32)
    own, killed, stop, attempts, right = comm.id, [], threading.Event(), 0, True
    thread = threading.Thread(target=kill_now_and_then, args=(comm, stop, killed))
    thread.start()
    for call in range(rounds):
        data.fill(1 << own)
        out = data if in_place else np.empty_like(data)
        if how == "weighted": options["weight"] = float(own)
        info = comm.all_reduce(data, out=out, **options)
        attempts = max(attempts, info.attempts)
        wanted = sum(1 << peer for peer in info.contributors)
        if how == "weighted":
            wanted = sum(peer << peer for peer in info.contributors) / sum(info.contributors)
        right &= bool(np.allclose(out, wanted, rtol=1e-6 if how != "int8" else 0.02, atol=0))
        say("sum", call, right)
    stop.set()
    thread.join()
    mended = sum(peer.link.mended for peer in comm.peers() if peer.link is not None)
    size = comm.world_size
    comm.barrier()
    say("end", right, attempts, size, len(killed) == 0 or mended > 0, len(killed))
"""
)


# ADDRESS: large sums on one stripe for each link, so that receipts queue up where chunks want to leave.
ONE_STRIPE = (
    PEER
    + """
with Communicator(address, min_islands=3, transport="tcp", config=Config(stripes=1)) as comm:
    say("in", comm.id)
    data, right = np.ones(1 << 24, np.float32), True
    for call in range(16):
        data.fill(call)
        comm.all_reduce(data, algorithm="direct", timeout=20)
        right &= bool(np.all(data == 3 * call))
    say("end", right)
"""
)


@pytest.fixture
def master() -> Iterator[Master]:
    """Patient: a busy machine is not what is tested here."""
    with Master(config=Config(heartbeats_missed_max=20)) as running:
        yield running


@contextmanager
def _processes(*arguments: list[object], source: str = KILLER) -> Iterator[list[subprocess.Popen[str]]]:
    started = []
    try:
        for words in arguments:
            command = [sys.executable, "-u", "-c", source, *map(str, words)]
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@pytest.mark.parametrize("how", ["ring", "direct", "int8", "weighted"])
@pytest.mark.parametrize("in_place", [0, 1])
@pytest.mark.parametrize("peers", [2, 4])
def test_stripes_die_one_by_one_and_nobody_hears_of_it(
    master: Master, peers: int, in_place: int, how: str
) -> None:
    words: list[list[object]] = [[master.address, peers, 8, in_place, how] for _ in range(peers)]
    with _processes(*words) as processes:
        ends = [expect(process, "end").split() for process in processes]
    for right, attempts, size, mended, _ in ends:
        assert (right, attempts, size, mended) == ("True", "1", str(peers), "True")
    assert sum(int(killed) for *_, killed in ends) > 0


def test_a_process_is_killed_while_stripes_die(master: Master) -> None:
    words: list[list[object]] = [[master.address, 3, 30, 0, "auto"] for _ in range(3)]
    with _processes(*words) as processes:
        expect(processes[0], "sum 5")
        processes[1].send_signal(signal.SIGKILL)
        for process in (processes[0], processes[2]):
            right, attempts, size, *_ = expect(process, "end").split()
            assert (right, size) == ("True", "2")
            assert int(attempts) <= 3


def test_stripes_and_path_are_visible(master: Master) -> None:
    def look(comm: Communicator, _: int) -> Any:
        for _ in range(3):
            comm.all_reduce(np.ones(100_000, np.float32))
        links = [peer.link for peer in comm.peers() if peer.link is not None]
        comm.barrier()  # nobody leaves before all have looked
        return links

    for links in together(master.address, 2, look):
        (link,) = links
        assert link.path == "host" and 1 <= link.stripes <= 2 and link.mended == 0
        assert 0 < link.rtt_s < 1 and link.congestion_control


@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_checksums_change_no_value(master: Master, dtype: Any) -> None:
    def play(comm: Communicator, index: int) -> Any:
        data = (np.arange(300_001) % 13 + index).astype(dtype)
        comm.all_reduce(data)
        return data

    first, second = together(master.address, 2, play, checksum=True)
    assert (first == ((np.arange(300_001) % 13) * 2 + 1).astype(dtype)).all()
    assert (first == second).all()


# A process that may open few descriptors: ADDRESS.
FEW = (
    PEER
    + """
import os, resource
low = len(os.listdir("/proc/self/fd")) + 40
resource.setrlimit(resource.RLIMIT_NOFILE, (low, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
with Communicator(address, min_islands=4, config=Config(heartbeats_missed_max=20, stripes=16)) as comm:
    data = np.ones(1 << 18, np.float32)
    for _ in range(5): comm.all_reduce(data)
    stripes = [peer.link.stripes for peer in comm.peers() if peer.link is not None]
    comm.barrier()
    say("end", bool((data == 4 ** 5).all()), max(stripes) < 16, len(os.listdir("/proc/self/fd")) < low)
"""
)


def test_receipts_in_the_queue_let_nobody_forget_to_send(master: Master) -> None:
    """A message that leaves a full stripe tells nobody: counted as a chunk, it could be the last to leave."""
    with _processes([master.address], [master.address], [master.address], source=ONE_STRIPE) as processes:
        assert [expect(process, "end") for process in processes] == ["True"] * 3


def test_few_descriptors_mean_few_stripes(master: Master) -> None:
    command = [sys.executable, "-u", "-c", FEW, master.address]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        for process in started:
            assert expect(process, "end") == "True True True"
    finally:
        for process in started:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def test_stripes_are_bounded() -> None:
    with pytest.raises(Exception, match="stripes"):
        Config(stripes=17)
