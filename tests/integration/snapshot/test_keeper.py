"""The keeper's process, its trainers killed at every moment, and itself."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pccl_py import NoSnapshotError, SnapshotError, SnapshotMemoryError
from pccl_py.cli import main as cli
from pccl_py.errors import DamagedError, VersionError
from pccl_py.snapshot import ask, channel, launch, limits, memory, messages, places
from pccl_py.snapshot.buffers import Buffers
from pccl_py.snapshot.verified import Verified

from .raw_trainer import buffers, plan_of, take, values

COUNT = 3 * (1 << 20) + 77
ROOT = Path(__file__).resolve().parents[3]


def trainer(spawn: Callable[..., Any], *words: object) -> subprocess.Popen[str]:
    return spawn("-m", "tests.integration.snapshot.raw_trainer", *map(str, words))  # type: ignore[no-any-return]


def check(held: Buffers, at_least: int, count: int = COUNT) -> int:
    """The newest snapshot is whole, bit for bit; its step."""
    newest = held.kept[0]
    with Verified(newest) as verified:
        offset = plan_of(count).offsets["w"]
        found = np.frombuffer(verified.data, np.uint8)[offset:]
        assert np.array_equal(found, values(newest.step, count))
        del found
    assert newest.step >= at_least
    return newest.step


def successor(run: str, at_least: int) -> int:
    held = buffers(run)
    held.attach(start=False)
    try:
        return check(held, at_least)
    finally:
        held.close(free=False)


@pytest.mark.deadline(120)
@pytest.mark.parametrize(("moment", "step"), [("begun", 1), ("copying", 1), ("copied", 1), ("completed", 2)])
def test_a_trainer_killed_at_a_moment(spawn: Callable[..., Any], moment: str, step: int) -> None:
    process = trainer(spawn, "run", COUNT, 2, moment)
    assert process.wait(60) == -signal.SIGKILL
    assert successor("run", step) == step
    process = trainer(spawn, "run", COUNT, step + 2, "begun")  # it goes on from there
    assert process.wait(60) == -signal.SIGKILL
    assert successor("run", step + 1) == step + 1


@pytest.mark.deadline(120)
def test_a_trainer_killed_at_any_moment(spawn: Callable[..., Any]) -> None:
    rng = random.Random(5)
    newest = -1
    for _ in range(3):
        process = trainer(spawn, "run", COUNT, -1, "never")
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        lines += process.stdout.read().split()
        process.wait()
        said = max(int(line) for line in lines)
        assert said > newest
        newest = successor("run", said)


def test_a_keeper_killed_while_its_trainer_lives(kill_keeper: Callable[[], int]) -> None:
    held = buffers("run")
    for step in (1, 2):
        take(held, step, values(step, COUNT))
    first = kill_keeper()
    until = time.monotonic() + 10
    while not held.is_lost() and time.monotonic() < until:
        time.sleep(0.01)
    held.reattach()  # what the thread behind the training does
    (path,) = ask.sockets()
    told = ask.summary(path)
    assert told is not None and told.pid != first and told.trainers[0].step == 2
    take(held, 3, values(3, COUNT))
    held.close(free=False)
    assert successor("run", 3) == 3


def test_a_keeper_killed_in_the_middle_of_a_snapshot(kill_keeper: Callable[[], int]) -> None:
    held = buffers("run")
    take(held, 1, values(1, COUNT))
    complete = held.complete

    def killed_first(*words: Any) -> None:
        kill_keeper()
        complete(*words)

    held.complete = killed_first  # type: ignore[method-assign]
    take(held, 2, values(2, COUNT))
    held.close(free=False)
    assert successor("run", 2) == 2


def test_both_killed(spawn: Callable[..., Any], kill_keeper: Callable[[], int]) -> None:
    process = trainer(spawn, "run", COUNT, 2, "begun")
    assert process.wait(60) == -signal.SIGKILL
    kill_keeper()
    with pytest.raises(NoSnapshotError, match="no keeper 'host' of run 'run'.*newest checkpoint"):
        successor("run", 0)
    held = buffers("run")  # and another begins
    take(held, 1, values(1, COUNT))
    check(held, 1)
    held.close(free=True)


def test_two_trainers_and_two_runs_on_one_host(capsys: pytest.CaptureFixture[str]) -> None:
    several = [buffers("a", "0"), buffers("a", "1"), buffers("b", "0")]
    for number, held in enumerate(several):
        take(held, 10 + number, values(10 + number, COUNT))
    for number, held in enumerate(several):
        assert check(held, 0) == 10 + number
    twin = buffers("a", "1")
    with pytest.raises(SnapshotError, match=f"'1' of run 'a' is attached by process {os.getpid()}"):
        twin.attach()
    assert len(ask.sockets()) == 2
    assert cli(["snapshots", "ls"]) == 0
    rows = sorted(line.split()[:2] + line.split()[3:5] for line in capsys.readouterr().out.splitlines()[1:])
    assert rows == [["a", "host", "0", "10"], ["a", "host", "1", "11"], ["b", "host", "0", "12"]]
    assert cli(["snapshots", "free", "a"]) == 1
    assert "attached" in capsys.readouterr().err
    several[2].close(free=False)
    assert cli(["snapshots", "free", "b", "--json"]) == 0
    assert f'"bytes": {2 * memory.whole_units(plan_of(COUNT).file_bytes)}' in capsys.readouterr().out
    for held in several[:2]:
        held.close(free=True)
    gone()


def gone() -> None:
    """All keepers end by themselves."""
    until = time.monotonic() + 10
    while ask.sockets() and time.monotonic() < until:
        time.sleep(0.01)
    assert ask.sockets() == []


def test_steps_only_rise_until_they_are_given_up() -> None:
    held = buffers("run")
    take(held, 50, values(50, COUNT))
    with pytest.raises(SnapshotError, match="step 50 of this trainer.*forget"):
        take(held, 10, values(10, COUNT))
    assert check(held, 50) == 50
    held.forget(9)
    take(held, 10, values(10, COUNT))
    assert check(held, 10) == 10
    held.close(free=True)


def test_a_state_that_grows() -> None:
    held = buffers("run")
    take(held, 1, values(1, COUNT))
    large = 20 << 20
    held.prepare(plan_of(large).file_bytes)
    assert check(held, 1) == 1  # until the larger one is complete
    take(held, 2, values(2, large))
    assert check(held, 2, large) == 2
    held.prepare(plan_of(large).file_bytes)
    assert held.memory_bytes == 2 * memory.whole_units(plan_of(large).file_bytes)
    take(held, 3, values(3, large))
    assert check(held, 3, large) == 3
    held.close(free=True)


def test_more_than_there_is() -> None:
    held = buffers("run")
    with pytest.raises(SnapshotMemoryError, match=r"needs 67108864 MiB .* and \d+ MiB can be had"):
        held.prepare(1 << 45)
    take(held, 1, values(1, COUNT))  # and the keeper goes on
    with pytest.raises(SnapshotMemoryError, match="a buffer of 1048576 MiB needs"):
        held.prepare(1 << 40)
    assert check(held, 1) == 1
    held.close(free=True)


def test_a_keeper_without_trainers_frees_its_memory_and_ends() -> None:
    held = buffers("run", orphan_s=0.2)
    take(held, 1, values(1, COUNT))
    held.close(free=False)
    gone()


def test_a_keeper_of_another_version() -> None:
    place = places.place("run", "host")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(place.socket))
        listener.listen()
        listener.settimeout(10)

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.send(b"pccl-keeper %d" % (limits.PROTOCOL + 1))
                connection.recv(100)

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(
            VersionError, match=rf"version {limits.PROTOCOL + 1} of the protocol.*snapshots free"
        ):
            buffers("run").attach()
        thread.join()


def test_a_damaged_region_is_seen() -> None:
    held = buffers("run")
    for step in (1, 2):
        take(held, step, values(step, COUNT))
    newest, before = held.kept
    os.pwrite(newest.fd, b"\xff\x00\xff", 2 << 20)
    with pytest.raises(DamagedError, match="step 2 in memory: 1 blocks .*(2)"):
        Verified(newest)
    Verified(before).close()
    held.close(free=True)


def test_signals_to_the_trainer_s_group_miss_the_keeper(spawn: Callable[..., Any]) -> None:
    process = trainer(spawn, "run", COUNT, -1, "never")
    assert process.stdout is not None
    process.stdout.readline()
    for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        os.killpg(process.pid, sent)
    process.wait()
    successor("run", 0)


def test_strangers_at_the_socket_end_nobody_else() -> None:
    held = buffers("run")
    take(held, 1, values(1, COUNT))
    rng = random.Random(11)
    (path,) = ask.sockets()
    whole = messages.encode(messages.Attach("0", 1 << 20, 0, 1.0, None))
    for number in range(120):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.connect(str(path))
            if number % 3:
                stranger.send(channel.greeting())
            for _ in range(rng.randrange(3)):
                raw = bytearray(whole if rng.random() < 0.5 else rng.randbytes(rng.randrange(1, 400)))
                raw[rng.randrange(len(raw))] = rng.randrange(256)
                try:
                    channel.send_raw(stranger, bytes(raw), [0] * rng.randrange(4))
                except OSError:
                    break
    assert check(held, 1) == 1
    take(held, 2, values(2, COUNT))
    told = ask.summary(path)
    assert told is not None and told.trainers[0].step == 2
    with open(f"/proc/{told.pid}/stat") as stat:
        assert int(stat.read().rpartition(")")[2].split()[3 - 1]) != os.getsid(0)
    assert len(os.listdir(f"/proc/{told.pid}/fd")) < 40  # no descriptor of theirs is left
    held.close(free=True)


def test_the_folder_is_the_user_s_alone() -> None:
    here = places.folder()
    assert here.stat().st_mode & 0o777 == 0o700
    here.chmod(0o755)
    with pytest.raises(SnapshotError, match="you alone can enter"):
        places.folder()
    here.chmod(0o700)


def test_two_starts_at_once_make_one_keeper() -> None:
    command = [sys.executable, "-m", "pccl_py.snapshot.keeper", "--run", "run"]
    for process in [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]:
        assert process.wait(60) == 0
    until = time.monotonic() + 20
    told = None
    while told is None and time.monotonic() < until:
        time.sleep(0.01)
        told = ask.summary(places.place("run", "host").socket)
    assert len(ask.sockets()) == 1
    assert told is not None and told.run == "run"
    os.kill(told.pid, signal.SIGTERM)
    gone()


def test_a_keeper_that_cannot_start_is_told_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "MODULE", "pccl_py.no_such_module")
    begun = time.monotonic()
    with pytest.raises(SnapshotError, match="cannot be started: it ended with status 1; .*no_such_module"):
        buffers("run").attach()
    assert time.monotonic() - begun < 20  # at once: not when it should have been there


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_what_starts_a_keeper_is_gone_when_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where another one is there sooner: a second keeper would come when the first has ended."""
    there = buffers("run")
    there.attach()
    before = children()  # of other tests
    monkeypatch.setattr(launch, "find", lambda *told: None)  # it was not there yet
    connects, connect = [0], launch.connect

    def late(*told: Any) -> socket.socket | None:
        connects[0] += 1
        return None if connects[0] == 1 else connect(*told)

    monkeypatch.setattr(launch, "connect", late)
    monkeypatch.setattr(subprocess.Popen, "wait", None)  # its looks are too far apart
    launch.find_or_start("run", "host", 30.0, 20.0).close()
    assert connects[0] == 2
    assert children() <= before
    there.close(free=True)


def test_a_hostile_message_takes_no_other_trainers_snapshot() -> None:
    held = buffers("run")
    take(held, 1, values(1, COUNT))
    table = memory.sealed_copy("test", b"abc")
    empty = messages.Slot("empty", 0, -1, 0, 3, zlib.crc32(b"abc"))
    with launch.find_or_start("run", "host", 30.0, 20.0) as hostile:
        fds = [memory.make("test", limits.BUFFER_UNIT), table]
        channel.send(hostile, messages.Attach("other", 0, 0, 30.0, empty), fds)
        channel.close_all(fds)
        answer, _ = channel.receive(hostile)
        assert isinstance(answer, messages.Refused) and answer.code == "wrong"
    assert held.keeper is not None and held.keeper.alive
    held.close(free=False)
    assert successor("run", 1) == 1


def first_buffers() -> set[int]:
    """By inode: those of slot 0 that this process has open."""
    found = set()
    for one in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if "pccl-0" in os.readlink(f"/proc/self/fd/{one}"):
                found.add(os.stat(f"/proc/self/fd/{one}").st_ino)
    return found


def test_a_buffer_that_is_too_small_is_freed_before_a_larger_one_is_made() -> None:
    before = first_buffers()
    held = buffers("run")
    held.attach()
    keeper = held.keeper
    assert keeper is not None
    keeper.reserve(0, 1)
    assert len(first_buffers() - before) == 1
    with pytest.raises(SnapshotMemoryError):
        keeper.reserve(0, 1 << 46)
    assert not first_buffers() - before
    assert keeper.capacities[0] == 0 and keeper.reserve(0, 1) >= 0
    held.close(free=True)
