"""What must not work, and must not hurt: addresses, secrets, strangers, forks, signals, sudden ends."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pccl_py import (
    AuthenticationError,
    ClosedError,
    Communicator,
    Config,
    ConnectError,
    Master,
    MasterLost,
    NotBuilt,
    OperationTimeout,
    RefusedError,
    UsageError,
    VersionError,
)
from tests.conftest import Spawn

from .peers import PEER, QUICK, expect, together

IMPATIENT = Config(heartbeat_ms=100, heartbeats_missed_max=10, master_lost_ms=300)


# ---- where the master should be ----------------------------------------------------------------------------


def test_nobody_listens(free_port: int) -> None:
    address = f"localhost:{free_port}"
    with pytest.raises(ConnectError) as caught:
        Communicator(address, config=IMPATIENT)
    text = str(caught.value)
    assert address in text and "127.0.0.1" in text and "refused" in text.lower()


def test_no_such_host() -> None:
    with pytest.raises(ConnectError, match="no-such-host.invalid"):
        Communicator("no-such-host.invalid:1", insecure=True)


@pytest.mark.parametrize(
    "address", ["", "localhost", "localhost:", "localhost:x", "localhost:70000", None, 3]
)
def test_no_address(address: Any) -> None:
    with pytest.raises(UsageError):
        Communicator(address)


@contextmanager
def service(answer: bytes, *, hang_up: bool) -> Iterator[str]:
    """Another program on the port: it says `answer` to everybody."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections: list[socket.socket] = []

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connections.append(connection)
                    connection.sendall(answer)
                    if hang_up:
                        connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for connection in connections:
            connection.close()


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3, b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n" * 3]
)
def test_another_service_answers(answer: bytes) -> None:
    with service(answer, hang_up=False) as address, pytest.raises(ConnectError) as caught:
        Communicator(address, config=IMPATIENT, timeout=10)
    assert address in str(caught.value)


def test_somebody_hangs_up_at_once() -> None:
    with service(b"", hang_up=True) as address, pytest.raises(ConnectError, match=r"127\.0\.0\.1"):
        Communicator(address, config=IMPATIENT, timeout=10)


def test_somebody_who_never_answers() -> None:
    with service(b"", hang_up=False) as address:
        begin = time.monotonic()
        with pytest.raises((ConnectError, OperationTimeout)):
            Communicator(address, config=IMPATIENT, timeout=1)
        assert time.monotonic() - begin < 5


def test_another_version(master: Master) -> None:
    """A master that says hello as ours does, but of a later version."""
    host, port = master.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 5) as ours:
        ours.sendall(b"x" * 0)
        ours.settimeout(5)
        hello = bytearray(ours.recv(32, socket.MSG_WAITALL))
    assert hello[:8] == b"PCCLpy\r\n"
    hello[8:10] = (99).to_bytes(2, "little") if hello[8] else (99).to_bytes(2, "big")
    with service(bytes(hello), hang_up=False) as address, pytest.raises(VersionError, match="99"):
        Communicator(address, config=IMPATIENT, timeout=10)


def test_not_admitted_in_time(master: Master) -> None:
    with Communicator(master.address):
        begin = time.monotonic()
        with pytest.raises(OperationTimeout, match="update_topology"):
            Communicator(master.address, timeout=0.2)
        assert time.monotonic() - begin < 3


def test_an_island_that_is_there_already(master: Master) -> None:
    with (
        Communicator(master.address, island="blue"),
        pytest.raises(RefusedError, match="island 'blue' is in the run already"),
    ):
        Communicator(master.address, island="blue", timeout=5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"island_size": 2}, "island_size=2 without island"),
        ({"island_size": 2, "island": "a", "group": 2}, "group=2 in an island of 2"),
        ({"island_size": 0}, "island_size=0"),
        ({"island": ""}, "island=''"),
        ({"island": "x" * 257}, "1 to 256 bytes"),
        ({"group": -1}, "group=-1"),
        ({"role": "boss"}, "role='boss': it is one of 'trainer', 'keeper'"),
        ({"min_islands": 0}, "min_islands=0"),
        ({"timeout": 0}, "timeout=0"),
        ({"timeout": "1"}, "timeout='1'"),
        ({"advertise": 3}, "advertise"),
        ({"listen": "0.0.0.0:0"}, "not loopback"),
    ],
)
def test_wrong_options(master: Master, options: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Communicator(master.address, **options)


def test_another_host_needs_a_secret() -> None:
    with pytest.raises(UsageError, match="secret_file"):
        Communicator("192.0.2.1:48148", timeout=1)
    with pytest.raises(UsageError, match="secret_file"):
        Master("0.0.0.0:0")


# ---- secrets -----------------------------------------------------------------------------------------------


def secret_file(folder: Path, name: str, text: bytes, mode: int = 0o600) -> Path:
    path = folder / name
    path.write_bytes(text)
    path.chmod(mode)
    return path


def test_a_shared_secret(tmp_path: Path) -> None:
    one = secret_file(tmp_path, "one", b"0123456789abcdef")
    same = secret_file(tmp_path, "same", b"0123456789abcdef\n")  # as an editor leaves it
    with Master(secret_file=one, config=QUICK) as master:

        def play(comm: Communicator, index: int) -> None:
            array = np.ones(300_000)
            comm.all_reduce(array)
            assert np.all(array == 2)

        together(master.address, 2, play, secret_file=same)


def test_secrets_that_differ(tmp_path: Path) -> None:
    one = secret_file(tmp_path, "one", b"0123456789abcdef")
    other = secret_file(tmp_path, "other", b"0123456789abcdeX")
    with Master(secret_file=one) as master:
        for options in ({"secret_file": other}, {}):
            with pytest.raises(AuthenticationError):
                Communicator(master.address, config=IMPATIENT, timeout=10, **options)  # type: ignore[arg-type]
    with Master() as master, pytest.raises(AuthenticationError):
        Communicator(master.address, secret_file=one, config=IMPATIENT, timeout=10)


def test_files_that_hold_no_secret(tmp_path: Path, master: Master) -> None:
    short = secret_file(tmp_path, "short", b"0123456789abcde\n")
    with pytest.raises(UsageError, match="holds 15 bytes of at least 16; make one"):
        Communicator(master.address, secret_file=short)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        Master(secret_file=tmp_path / "none")
    with pytest.raises(UsageError, match="contradict"):
        Communicator(master.address, secret_file=short, insecure=True)


def test_a_secret_that_everybody_may_read(tmp_path: Path) -> None:
    path = secret_file(tmp_path, "secret", b"0123456789abcdef", 0o644)
    with pytest.warns(UserWarning, match="may be read or written by everybody: chmod 600") as caught:
        Master(secret_file=path).stop()
    assert caught[0].filename == __file__


# ---- strangers ---------------------------------------------------------------------------------------------


def hostile(seed: int) -> Iterator[bytes]:
    """Garbage, half a message, huge lengths; some of it behind a proper hello."""
    draw = random.Random(seed)
    hello = b"PCCLpy\r\n" + (1).to_bytes(2, "little") + bytes(6) + draw.randbytes(16)
    yield b""
    yield hello[: draw.randrange(32)]
    yield hello
    for _ in range(30):
        start = hello if draw.random() < 0.8 else b""
        length = draw.choice([0, 1, 16, 2**31 - 1, 2**32 - 1, draw.randrange(2000)])
        head = length.to_bytes(4, "little") + draw.randbytes(draw.randrange(40))
        yield start + head + draw.randbytes(draw.randrange(2000))


def test_strangers_hurt_nobody(master: Master) -> None:
    """They attack the master's port and a peer's while two peers reduce; only their connections die."""

    def attack(address: str, seed: int) -> None:
        host, port = address.rsplit(":", 1)
        for words in hostile(seed):
            with suppress(OSError), socket.create_connection((host, int(port)), 5) as connection:
                connection.sendall(words)
                if seed % 2:
                    connection.settimeout(0.01)
                    connection.recv(100)

    def play(comm: Communicator, index: int) -> int:
        addresses = [master.address, *(address for peer in comm.peers() for address in peer.addresses)]
        if index:
            attackers = [
                threading.Thread(target=attack, args=(address, seed))
                for seed in range(2)
                for address in addresses
            ]
            for attacker in attackers:
                attacker.start()
        steps = 0
        begin = time.monotonic()
        going = np.ones(1)
        while going[0]:
            array = np.full(10_000, 1.0)
            comm.all_reduce(array)
            assert np.all(array == 2)
            going[0] = time.monotonic() - begin < 1.5
            comm.all_reduce(going, "min")
            steps += 1
        if index:
            for attacker in attackers:
                attacker.join()
        return steps

    assert min(together(master.address, 2, play)) > 10
    assert master.status()["view"] >= 1


# ---- this process ------------------------------------------------------------------------------------------

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


FORKED_WORKER = """
comm = Communicator(address, min_islands=2, config=config)
if os.fork() == 0:
    time.sleep(60)
say("ready")
while True: comm.all_reduce(np.ones(3))
"""


def test_a_killed_peer_with_workers_is_noticed_at_once(master: Master, spawn: Spawn) -> None:
    """Its forked children live on, but hold no connection of ours open."""
    process = spawn("-c", PEER + FORKED_WORKER, master.address)
    with Communicator(master.address, min_islands=2, config=QUICK) as comm:
        expect(process, "ready")
        comm.all_reduce(np.ones(3))
        process.kill()
        begin = time.monotonic()
        while len(comm.all_reduce(np.ones(3)).contributors) == 2:
            pass
        assert time.monotonic() - begin < 0.5  # the heartbeat limit here is 1 s


INTERRUPT = """
comm = Communicator(address, min_islands=2, config=config)
def after(seconds):
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
array = np.ones(3)
for call in (
    lambda: comm.all_reduce(array),
    lambda: comm.update_topology(),
    lambda: comm.sync_shared_state(SharedState({"x": array})),
):
    after(0.3)
    try:
        call()
    except KeyboardInterrupt:
        say("interrupted", array[0])
work = comm.all_reduce(array, tag=3, async_op=True)
after(0.3)
try:
    work.wait()
except KeyboardInterrupt:
    say("interrupted", work.is_completed())
say("go")
work.wait()
say("result", array[0])
comm.all_reduce(array)
say("result", array[0])
"""


def test_ctrl_c_while_waiting(master: Master, spawn: Spawn) -> None:
    """A blocking call is cancelled on all peers, a Work goes on; the communicator stays usable."""
    process = spawn("-c", PEER + INTERRUPT, master.address)
    with Communicator(master.address, min_islands=2, config=QUICK) as comm:
        assert expect(process, "interrupted") == "1.0"
        assert expect(process, "interrupted") == "1.0"
        assert expect(process, "interrupted") == "1.0"
        assert expect(process, "interrupted") == "False"
        expect(process, "go")
        array = np.ones(3)
        comm.all_reduce(array, tag=3)
        assert expect(process, "result") == "2.0"
        for _ in range(2):  # the cancelled ones: the first all_reduce, and the synchronization
            with pytest.raises(Exception, match="cancelled"):
                comm.all_reduce(array)
        comm.all_reduce(array)
        assert expect(process, "result") == "4.0"
    assert process.wait(10) == 0


ENDS = {
    "an operation in flight": "work = comm.all_reduce(np.ones(1 << 20), async_op=True)",
    "a communicator that nobody left": "pass",
    "a daemon thread that waits": (
        "threading.Thread(target=comm.all_reduce, args=(np.ones(3),), daemon=True).start(); time.sleep(0.3)"
    ),
    "daemon threads in every call": (
        "w = comm.all_reduce(np.ones(3), tag=1, async_op=True)\n"
        "threading.Thread(target=w.wait, daemon=True).start()\n"
        "state = SharedState({'x': np.ones(3)})\n"
        "threading.Thread(target=comm.sync_shared_state, args=(state,), daemon=True).start()\n"
        "threading.Thread(target=Communicator, args=(address,), daemon=True).start(); time.sleep(0.3)"
    ),
    "an error": "work = comm.all_reduce(np.ones(3), async_op=True); sys.exit(3)",
    "a cycle": (
        "class C: pass\nc = C(); c.me = c; c.comm = comm; c.w = comm.all_reduce(np.ones(3), async_op=True)"
    ),
    "os._exit": "work = comm.all_reduce(np.ones(3), async_op=True); os._exit(0)",
}


@pytest.mark.parametrize("end", list(ENDS))
def test_the_interpreter_ends(master: Master, spawn: Spawn, end: str) -> None:
    """Neither a hang nor a crash, and the others go on."""
    start = "comm = Communicator(address, min_islands=2, config=config)\nsay('ready')\n"
    process = spawn("-c", PEER + start + ENDS[end], master.address)
    with Communicator(master.address, min_islands=2, config=QUICK) as comm:
        expect(process, "ready")
        assert process.wait(15) == (3 if end == "an error" else 0), process.stdout.read()  # type: ignore[union-attr]
        array = np.ones(3)
        comm.barrier(tag=9)
        comm.all_reduce(array, tag=10)
        assert np.all(array == 1) and comm.world_size == 1


def test_two_communicators_in_one_process() -> None:
    """Of two runs, each with its master."""
    with Master() as one, Master() as two, Communicator(one.address) as a, Communicator(two.address) as b:
        arrays = np.ones(3), np.ones(3)
        a.all_reduce(arrays[0])
        b.all_reduce(arrays[1])
        assert one.address != two.address
        a.leave()
        b.all_reduce(arrays[1])


def test_after_leaving(master: Master) -> None:
    with Communicator(master.address) as comm:
        pass
    for call in (
        lambda: comm.all_reduce(np.ones(3)),
        lambda: comm.rank,
        comm.update_topology,
        comm.peers,
        comm.rejoin,
    ):
        with pytest.raises(ClosedError):
            call()
    comm.leave()
    assert "Communicator" in repr(comm)


def test_wrong_arguments_of_operations(master: Master) -> None:
    with Communicator(master.address) as comm:
        array = np.ones(3)
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"op": "mean"}, "op='mean': it is one of 'sum', 'avg'"),
            ({"op": 1}, "op=1"),
            ({"tag": -1}, "tag=-1: it is a whole number from 0 to 4294967293"),
            ({"tag": 2**32 - 2}, "tag=4294967294"),
            ({"tag": True}, "tag=True"),
            ({"tag": "x"}, "tag='x'"),
            ({"scope": "world"}, "scope='world'"),
            ({"on_loss": "ignore"}, "on_loss='ignore'"),
            ({"timeout": 0}, "timeout=0"),
            ({"timeout": float("nan")}, "timeout=nan"),
            ({"weight": 1.0}, "weight with op='sum'"),
            ({"op": "avg", "weight": -1}, "weight=-1"),
            ({"op": "avg", "weight": float("inf")}, "weight=inf"),
            ({"op": "avg", "weight": "x"}, "weight='x'"),
        ]
        for arguments, text in wrong:
            with pytest.raises(UsageError, match=text):
                comm.all_reduce(array, **arguments)
        with pytest.raises(UsageError, match="integer dtype"):
            comm.all_reduce(np.ones(3, int), "avg", weight=1)
        with pytest.raises(UsageError, match="root=1"):
            comm.broadcast(array, 1)
        with pytest.raises(UsageError, match="islands=0"):
            comm.wait_for(0)
        assert np.all(array == 1)
        comm.all_reduce(array, tag=np.int64(3))  # type: ignore[arg-type]


def test_one_tag_twice_at_once(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        if comm.rank == 0:
            work = comm.all_reduce(np.ones(3), tag=4, async_op=True)
            with pytest.raises(UsageError, match="in flight already"):
                comm.all_reduce(np.ones(3), tag=4)
            comm.barrier(tag=5)
            work.wait()
        else:
            comm.barrier(tag=5)
            comm.all_reduce(np.ones(3), tag=4)
        comm.all_reduce(np.ones(3), tag=4)

    together(master.address, 2, play)


# ---- the master --------------------------------------------------------------------------------------------


def test_the_master_is_killed(spawn: Spawn) -> None:
    """Clear errors on every peer, soon, and no path ends the process."""
    process = spawn("-m", "pccl_py", "master", "--listen", "127.0.0.1:0")
    address = expect(process, "pccl_py master at").split(";")[0]
    config = Config(heartbeat_ms=100, master_lost_ms=500, verdict_ms=500)

    def play(index: int) -> None:
        with Communicator(address, min_islands=2, config=config) as comm:
            try:
                while True:
                    comm.all_reduce(np.ones(1000))
                    ready.set()
            except Exception as error:
                errors.append(error)
            with pytest.raises(MasterLost):
                comm.all_reduce(np.ones(3))
            for _ in range(2):
                with pytest.raises(ConnectError):
                    comm.rejoin(timeout=5)
                with pytest.raises(ClosedError, match="call it again"):
                    comm.all_reduce(np.ones(3))

    ready = threading.Event()
    errors: list[Exception] = []
    threads = [threading.Thread(target=play, args=(index,), daemon=True) for index in range(2)]
    for thread in threads:
        thread.start()
    assert ready.wait(20)
    process.kill()
    begin = time.monotonic()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert time.monotonic() - begin < 8
    assert len(errors) == 2
    for error in errors:
        assert type(error).__name__ in ("MasterLost", "OutcomeUnknown"), error


def test_waiting_costs_no_cpu(master: Master, spawn: Spawn) -> None:
    source = """
comm = Communicator(address, min_islands=2, config=config)
say("ready")
begin = time.process_time()
comm.all_reduce(np.ones(3))
say("cpu", time.process_time() - begin)
"""
    process = spawn("-c", PEER + source, master.address)
    with Communicator(master.address, min_islands=2, config=QUICK) as comm:
        expect(process, "ready")
        time.sleep(1.5)
        comm.all_reduce(np.ones(3))
        assert float(expect(process, "cpu")) < 0.08


def test_who_is_missing_is_logged(master: Master, caplog: pytest.LogCaptureFixture) -> None:
    def play(comm: Communicator, index: int) -> int:
        rank, peer = comm.rank, comm.id
        if rank:
            time.sleep(1.5)
        comm.all_reduce(np.ones(3))
        return peer if rank else 0

    late = max(together(master.address, 2, play))
    deadline = time.monotonic() + 3
    while "waiting in" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.02)
    lines = [record.getMessage() for record in caplog.records if "waiting in" in record.getMessage()]
    assert len(lines) == 1 and "all_reduce" in lines[0] and f"peer {late}" in lines[0]


def test_state_dir_is_not_built_yet() -> None:
    with pytest.raises(NotBuilt, match="survive a restart"):
        Master(state_dir="/tmp")


def test_a_port_that_is_taken(master: Master) -> None:
    with pytest.raises(ConnectError, match=r"cannot listen on 127\.0\.0\.1"):
        Master(master.address)


def test_a_forked_child_does_not_stop_the_master(master: Master) -> None:
    child = os.fork()
    if child == 0:
        master.stop()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with Communicator(master.address) as comm:
        comm.all_reduce(np.ones(3))
