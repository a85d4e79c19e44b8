"""Processes that fork after they have connected."""

from __future__ import annotations

import os

import numpy as np

from pccl_py import Communicator, Master
from tests.conftest import Spawn

from .peers import PEER, QUICK, expect

FORK = """
comm = Communicator(address, min_islands=2, config=config)
child = os.fork()
if child == 0:
    for call in (lambda: comm.all_reduce(np.ones(3)), lambda: comm.rank, comm.update_topology):
        try:
            call()
        except UsageError as error:
            say("child", error)
    comm.leave()
    sys.exit(0)
say("status", os.waitpid(child, 0)[1])
array = np.ones(3)
comm.all_reduce(array)
say("parent", array[0], comm.world_size)
"""


def test_fork_after_connect(master: Master, spawn: Spawn) -> None:
    process = spawn("-c", PEER + FORK, master.address)
    with Communicator(master.address, min_islands=2, config=QUICK) as comm:
        for _ in range(3):
            assert "inherited by a fork" in expect(process, "child")
        assert expect(process, "status") == "0"
        comm.all_reduce(np.ones(3))
        assert expect(process, "parent") == "2.0 2"


def test_a_forked_child_does_not_stop_the_master(master: Master) -> None:
    child = os.fork()
    if child == 0:
        master.stop()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with Communicator(master.address) as comm:
        comm.all_reduce(np.ones(3))


# The library has logged before the fork; the child joins, waits for the parent's peer, and says for whom.
LOGS_IN_CHILD = """
import logging, os, sys, time
import numpy as np
from pccl_py import *
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(process)d %(message)s")
quick = Config(waiting_notice_ms=100)
with Master(config=quick) as master:
    with Communicator(master.address, config=quick) as first:
        time.sleep(0.3)
    child = os.fork()
    with Communicator(master.address, config=quick, min_islands=2) as comm:
        if child: time.sleep(1)
        comm.all_reduce(np.ones(3), tag=1)
    if not child: time.sleep(0.3); os._exit(0)
    print("child", child, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_a_forked_child_logs(spawn: Spawn) -> None:
    process = spawn("-c", LOGS_IN_CHILD)
    lines = (process.stdout.read() if process.stdout else "").splitlines()
    child, status = next(line.split()[1:] for line in lines if line.startswith("child"))
    assert status == "0"
    assert any(line.startswith(child) and "waiting in all_reduce" in line for line in lines), lines


# ADDRESS: one more thread is one too many for this user.
NO_THREADS = """
import resource, sys, os, numpy.ma
from pccl_py import *
if os.getuid() == 0: os.setgid(54321); os.setuid(54321)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
for make in (lambda: Communicator(sys.argv[1]), lambda: Master()):
    try:
        make()
    except ConnectError as error:
        print(error, flush=True)
"""


def test_no_thread_is_an_error(master: Master, spawn: Spawn) -> None:
    process = spawn("-c", NO_THREADS, master.address)
    said = (process.stdout.read() if process.stdout else "").splitlines()
    assert process.wait(10) == 0
    assert len(said) == 2 and all("limit of processes" in line for line in said), said


# The child opens files, whose numbers are those that were closed for it, and then drops what it inherited.
DROPPED_IN_CHILD = """
import gc, os
from pccl_py import *
master = Master()
comm = Communicator(master.address)
child = os.fork()
if child == 0:
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(64)]
    master.__dict__.clear()
    comm.__dict__.clear()
    del master, comm
    gc.collect()
    for fd in opened:
        os.fstat(fd)
    os._exit(7)
print("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_what_a_child_drops_closes_none_of_its_files(spawn: Spawn) -> None:
    assert expect(spawn("-c", DROPPED_IN_CHILD), "status") == "7"
