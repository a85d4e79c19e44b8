"""`_core.ShardWriter`: what it leaves on the disk, whatever the disk does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pccl_py import CheckpointError, UsageError, _core
from pccl_py.errors import InternalError

from .disk_files import MIB, noise, write

SIZES = [0, 1, 4095, 4096, 4097, 16 * MIB - 1, 16 * MIB, 16 * MIB + 1]
WITHOUT_DIRECT = "direct * EINVAL"


@pytest.fixture
def folder() -> Iterator[Path]:
    """On the disk of the working tree, where direct writing mostly works: elsewhere it may be memory."""
    path = Path(__file__).resolve().parents[2] / "build" / f"test-disk-{os.getpid()}"
    path.mkdir(parents=True)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("script", ["", WITHOUT_DIRECT], ids=["direct", "buffered"])
@pytest.mark.parametrize("size", SIZES)
def test_any_size_is_written_to_the_byte(folder: Path, size: int, script: str) -> None:
    data = noise(size)
    writer = write(_core.InjectedDisk(script), folder / "shard.part", data, part=MIB)
    assert (folder / "shard.part").read_bytes() == data.tobytes()
    assert writer.written == size
    if script or not size:
        assert not writer.direct


@pytest.mark.parametrize("script", ["", WITHOUT_DIRECT], ids=["direct", "buffered"])
@pytest.mark.parametrize("old", [0, 1, 4096, MIB - 1, MIB, 3 * MIB + 5])
def test_a_recycled_file_shows_nothing_of_its_past(folder: Path, old: int, script: str) -> None:
    (folder / "retired").write_bytes(b"x" * old)
    inode = (folder / "retired").stat().st_ino
    data = noise(MIB + 77)
    path = folder / "shard.part"
    writer = write(_core.InjectedDisk(script), path, data, recycle=str(folder / "retired"))
    assert writer.recycled
    assert path.stat().st_ino == inode
    assert path.read_bytes() == data.tobytes()
    assert os.listdir(folder) == ["shard.part"]


def test_a_retired_file_with_other_names_keeps_its_content_there(folder: Path) -> None:
    (folder / "retired").write_bytes(b"precious")
    os.link(folder / "retired", folder / "backup")
    data = noise(5000)
    write(_core.Disk(), folder / "shard.part", data, recycle=str(folder / "retired"))
    assert (folder / "backup").read_bytes() == b"precious"
    assert (folder / "shard.part").read_bytes() == data.tobytes()


def test_nothing_is_written_through_a_link(folder: Path) -> None:
    (folder / "elsewhere").write_bytes(b"precious")
    (folder / "retired").symlink_to(folder / "elsewhere")
    data = noise(5000)
    write(_core.Disk(), folder / "shard.part", data, recycle=str(folder / "retired"))
    assert (folder / "shard.part").read_bytes() == data.tobytes()
    (folder / "next.part").symlink_to(folder / "elsewhere")
    with pytest.raises(CheckpointError, match=r"next\.part.*symbolic link"):
        write(_core.Disk(), folder / "next.part", data)
    assert (folder / "elsewhere").read_bytes() == b"precious"


def test_a_retired_file_that_is_gone_costs_nothing(folder: Path) -> None:
    data = noise(5000)
    writer = write(_core.Disk(), folder / "shard.part", data, recycle=str(folder / "gone"))
    assert not writer.recycled
    assert (folder / "shard.part").read_bytes() == data.tobytes()


FAULTS = ["ENOSPC", "EIO", "EROFS", "EINTR", "EINVAL", "EAGAIN", "cut 0", "cut 100", "cut 5000"]


@pytest.mark.parametrize("recycle", [False, True], ids=["new", "recycled"])
@pytest.mark.parametrize("always", ["", WITHOUT_DIRECT], ids=["direct", "buffered"])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_call_may_fail(folder: Path, fault: str, always: str, recycle: bool) -> None:
    """Once, or from that call on: either the file is whole, or an error names it and nothing is left."""
    data, path, retired = noise(3 * 8192 + 10), folder / "shard.part", folder / "retired"
    kinds = ["pwrite"] if fault.startswith("cut") else list(_core.InjectedDisk("").calls())
    ended_well, failed = 0, 0
    for call in kinds:
        if always and call == "direct":
            continue
        for index in range(1, 7):
            for which in (f"{index}", f"{index}+"):
                if recycle:
                    retired.write_bytes(b"x" * 9000)
                disk = _core.InjectedDisk(f"{always}; {call} {which} {fault}")
                try:
                    write(disk, path, data, part=8192, recycle=str(retired) if recycle else "")
                except CheckpointError as error:
                    failed += 1
                    assert re.search(r"cannot .* \S*shard\.part: [A-Z][^;]*; .", str(error)), error
                    # A name that cannot be removed stays for the next start's sweep.
                    assert not path.exists() or call == "unlink"
                    assert disk.calls()[call] >= index
                else:
                    ended_well += 1
                    assert path.read_bytes() == data.tobytes(), (call, which)
                path.unlink(missing_ok=True)
                retired.unlink(missing_ok=True)
                if disk.calls()[call] < index:
                    break
    assert ended_well > 0
    if fault in ("ENOSPC", "EIO", "EROFS"):
        assert failed >= 10


@pytest.mark.parametrize("call", ["pwrite", "fdatasync", "truncate", "close"])
def test_an_error_says_what_and_what_next(folder: Path, call: str) -> None:
    with pytest.raises(CheckpointError, match=r"shard\.part: No space left on device; free space"):
        write(_core.InjectedDisk(f"{call} 1+ ENOSPC"), folder / "shard.part", noise(5000))
    assert os.listdir(folder) == []


def test_the_first_error_wins_and_ends_all(folder: Path) -> None:
    data = noise(64 * 4096)
    disk = _core.InjectedDisk("pwrite 3 EIO; pwrite 4+ ENOSPC; pwrite * delay 1")
    writer = _core.ShardWriter(disk, str(folder / "shard.part"), data.size, threads=1)
    for at in range(0, data.size, 4096):
        writer.write(at, data.ctypes.data + at, 4096)
    with pytest.raises(CheckpointError, match="Input/output error"):
        writer.finish()
    assert disk.calls()["pwrite"] == 3
    assert writer.written == 4096  # the first call was the trial
    assert os.listdir(folder) == []


def test_abandoned_files_are_gone(folder: Path) -> None:
    data = noise(64 * 4096)
    disk = _core.InjectedDisk("pwrite 2+ delay 5")
    writer = _core.ShardWriter(disk, str(folder / "shard.part"), data.size)
    for at in range(0, data.size, 4096):
        writer.write(at, data.ctypes.data + at, 4096)
    writer.abandon()
    assert disk.calls()["pwrite"] < 30
    assert os.listdir(folder) == []
    with pytest.raises(UsageError, match="ended already"):
        writer.finish()
    other = _core.ShardWriter(disk, str(folder / "shard.part"), data.size)
    del other
    assert os.listdir(folder) == []


def test_parts_that_are_none(folder: Path) -> None:
    data, path = noise(8192), str(folder / "shard.part")
    for offset, address, count in [
        (1, 0, 4096),
        (0, 8, 4096),
        (4096, 0, 100),
        (8192, 0, 4096),
        (2**64 - 4096, 0, 4096),
    ]:
        writer = _core.ShardWriter(_core.Disk(), path, 10_000)
        writer.write(offset, data.ctypes.data + address, count)
        with pytest.raises(UsageError, match="no part that can be written"):
            writer.finish()
    with pytest.raises(UsageError, match="zero byte"):
        _core.ShardWriter(_core.Disk(), "a\0b", 1)
    with pytest.raises(UsageError, match="no file has"):
        _core.ShardWriter(_core.Disk(), path, 2**64 - 1)
    writer = _core.ShardWriter(_core.Disk(), path, 10_000)
    writer.write(0, data.ctypes.data, 8192)
    with pytest.raises(InternalError, match="8192 of 10000"):
        writer.finish()
    assert os.listdir(folder) == []


def test_a_folder_that_cannot_be_written() -> None:
    with pytest.raises(CheckpointError, match=r"/nowhere/at/all.*No such file.*make the folder"):
        _core.ShardWriter(_core.Disk(), "/nowhere/at/all", 1)
    with pytest.raises(CheckpointError, match=r"/proc/shard"):
        _core.ShardWriter(_core.Disk(), "/proc/shard", 1)


def mounted(at: Path, *options: str) -> bool:
    command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(at)]
    try:
        return subprocess.run(command, capture_output=True, timeout=10).returncode == 0
    except OSError:
        return False


def test_a_file_system_without_room(tmp_path: Path) -> None:
    if not mounted(tmp_path, "-o", "size=1m"):
        pytest.skip("only root, where it may, mounts a file system of 1 MiB")
    try:
        good = noise(600_000)
        write(_core.Disk(), tmp_path / "first", good)
        for script in ("", "allocate * EOPNOTSUPP"):  # found before the first byte, or half-way
            with pytest.raises(CheckpointError, match=r"second\.part: No space left on device; free space"):
                write(_core.InjectedDisk(script), tmp_path / "second.part", noise(600_000), part=65536)
            assert os.listdir(tmp_path) == ["first"]
        assert (tmp_path / "first").read_bytes() == good.tobytes()
        # A retired file has its room already.
        write(_core.Disk(), tmp_path / "third.part", noise(600_000, 1), recycle=str(tmp_path / "first"))
        assert (tmp_path / "third.part").read_bytes() == noise(600_000, 1).tobytes()
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True, timeout=10)
        with pytest.raises(CheckpointError, match="Read-only file system; remount"):
            write(_core.Disk(), tmp_path / "fourth.part", good)
        with pytest.raises(CheckpointError, match="Read-only file system; remount"):
            write(_core.Disk(), tmp_path / "fourth.part", good, recycle=str(tmp_path / "third.part"))
        assert (tmp_path / "third.part").read_bytes() == noise(600_000, 1).tobytes()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True, timeout=10)


def test_a_forked_child_leaves_the_file_alone(folder: Path) -> None:
    data, path = noise(MIB), folder / "shard.part"
    writer = _core.ShardWriter(_core.Disk(), str(path), data.size)
    writer.write(0, data.ctypes.data, data.size // 2)
    child = os.fork()
    if child == 0:
        del writer  # must neither wait for threads that are not here nor remove the parent's file
        write(_core.Disk(), folder / "child.part", noise(5000))
        os._exit(0 if path.exists() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    writer.write(data.size // 2, data.ctypes.data + data.size // 2, data.size // 2)
    writer.finish()
    assert path.read_bytes() == data.tobytes()
    assert (folder / "child.part").read_bytes() == noise(5000).tobytes()
