"""`_core.read_verified`: right bytes in the right places, or an error that names what is wrong."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pccl_py import CheckpointError, DamagedError, UsageError, _core

from .disk_files import BLOCK, MIB, Run, crcs_of, noise, read, read_whole

BUILD = Path(__file__).resolve().parents[2] / "build"
WITHOUT_DIRECT = "direct * EINVAL"
DATA = noise(40 * BLOCK + 123, seed=5).tobytes()
CRCS = crcs_of(DATA)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("disk") / "shard"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("script", ["", WITHOUT_DIRECT], ids=["direct", "buffered"])
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 16 * MIB - 1, 16 * MIB, 16 * MIB + 1, 35 * MIB])
def test_any_size_is_read_to_the_byte(size: int, threads: int, script: str) -> None:
    BUILD.mkdir(exist_ok=True)
    path, data = BUILD / f"test-disk-{os.getpid()}", noise(size, seed=size).tobytes()
    path.write_bytes(data)
    try:
        disk, to = _core.InjectedDisk(script), np.zeros(size, np.uint8)
        run = (0, to.ctypes.data, size, 1, 0, 0)
        stats = read(disk, path, size, crcs_of(data, MIB), [run], block=MIB, threads=threads)
    finally:
        path.unlink()
    assert to.tobytes() == data
    assert (stats.bytes_read, stats.bytes_copied) == (size, size)
    assert stats.blocks == -(-size // MIB)
    assert 1 <= stats.threads <= threads
    assert not (script and stats.direct)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "shard").write_bytes(b"")
    assert read(_core.Disk(), tmp_path / "shard", 0, b"", []).bytes_read == 0
    (tmp_path / "shard").write_bytes(b"x")
    with pytest.raises(DamagedError, match="1 bytes instead of 0"):
        read(_core.Disk(), tmp_path / "shard", 0, b"", [])


@st.composite
def strided(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """(offset, bytes, count, file stride, memory stride) of a run within DATA."""
    count = draw(st.integers(1, 300))
    size = draw(st.one_of(st.sampled_from([1, 2, 4, 8, 16, 4096]), st.integers(1, 20_000)))
    count = min(count, max(1, (len(DATA) - 1) // size))
    room = (len(DATA) - size) // max(count - 1, 1)
    stride = draw(st.integers(0, room)) if count > 1 else draw(st.integers(0, 2**63))
    reach = (count - 1) * stride + size
    offset = draw(st.integers(0, len(DATA) - reach))
    return offset, size, count, stride, size + draw(st.integers(0, 100))


@settings(max_examples=300, deadline=None)
@given(st.lists(strided(), max_size=6), st.integers(1, 4), st.booleans())
def test_runs_are_slices(
    shard: Path, runs: list[tuple[int, int, int, int, int]], threads: int, direct: bool
) -> None:
    source = np.frombuffer(DATA, np.uint8)
    places, wanted, plan, touched = [], [], [], set()
    for offset, size, count, stride, step in runs:
        place = np.full((count - 1) * step + size, 0xEE, np.uint8)
        expected = place.copy()
        for row in range(count):
            begin = offset + row * stride
            expected[row * step : row * step + size] = source[begin : begin + size]
            touched.update(range(begin // BLOCK, (begin + size - 1) // BLOCK + 1))
        places.append(place)
        wanted.append(expected)
        plan.append((offset, place.ctypes.data, size, count, stride, step))
    disk = _core.Disk() if direct else _core.InjectedDisk(WITHOUT_DIRECT)
    stats = read(disk, shard, len(DATA), CRCS, plan, threads=threads)
    for place, expected in zip(places, wanted, strict=True):
        np.testing.assert_array_equal(place, expected)
    assert stats.blocks == len(touched)
    assert stats.bytes_copied == sum(size * count for _, size, count, _, _ in runs)


def test_empty_runs_touch_nothing(shard: Path) -> None:
    empty: list[Run] = [(0, 0, 0, 5, 1, 1), (2**64 - 1, 0, 5, 0, 2**64 - 1, 0), (7, 0, 0, 1, 0, 0)]
    assert read(_core.Disk(), shard, len(DATA), CRCS, empty).blocks == 0


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 8 * len(DATA) - 1))
def test_every_flipped_bit_is_found(tmp_path_factory: pytest.TempPathFactory, bit: int) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped"
    flipped = bytearray(DATA)
    flipped[bit // 8] ^= 1 << bit % 8
    path.write_bytes(flipped)
    block = bit // 8 // BLOCK
    begin, end = block * BLOCK, min((block + 1) * BLOCK, len(DATA))
    with pytest.raises(
        DamagedError, match=rf"flipped is damaged in block {block} \(bytes {begin} to {end}\)"
    ):
        read_whole(_core.Disk(), path, DATA)
    # Other blocks are none the worse: what does not touch this one is read.
    to = np.zeros(len(DATA), np.uint8)
    around: list[Run] = [(0, to.ctypes.data, begin, 1, 0, 0)]
    around.append((end, to.ctypes.data + end, len(DATA) - end, 1, 0, 0))
    read(_core.Disk(), path, len(DATA), CRCS, around)
    assert to[:begin].tobytes() + to[end:].tobytes() == DATA[:begin] + DATA[end:]


def test_a_damaged_block_is_not_copied(tmp_path: Path) -> None:
    path, flipped = tmp_path / "shard", bytearray(DATA)
    flipped[BLOCK + 7] ^= 4
    path.write_bytes(flipped)
    to = np.full(len(DATA), 0xEE, np.uint8)
    found, expected = (zlib.crc32(part[BLOCK : 2 * BLOCK]) for part in (flipped, DATA))
    with pytest.raises(DamagedError, match=f"CRC-32 is {found:08x} instead of {expected:08x}; load an older"):
        read(_core.Disk(), path, len(DATA), CRCS, [(0, to.ctypes.data, len(DATA), 1, 0, 0)])
    assert (to[BLOCK : 2 * BLOCK] == 0xEE).all()
    right = np.frombuffer(DATA, np.uint8)
    assert ((to == 0xEE) | (to == right)).all()


@pytest.mark.parametrize("change", [-len(DATA), -len(DATA) + 1, -BLOCK, -1, 1, BLOCK])
def test_a_file_of_another_length(tmp_path: Path, change: int) -> None:
    path = tmp_path / "shard"
    path.write_bytes((DATA + bytes(BLOCK))[: len(DATA) + change])
    with pytest.raises(DamagedError, match=rf"shard is damaged.* {len(DATA) + change} bytes instead of"):
        read_whole(_core.Disk(), path, DATA)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(
        DamagedError, match=r"gone: No such file or directory; the file is gone: load an older"
    ):
        read_whole(_core.Disk(), tmp_path / "gone", DATA)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(DamagedError, match="no regular file"):
            read_whole(_core.Disk(), path, DATA)


def test_another_checksum_for_each_block(shard: Path) -> None:
    to = np.zeros(1, np.uint8)
    for block in range(len(CRCS) // 4):
        wrong = bytearray(CRCS)
        wrong[4 * block] ^= 1
        with pytest.raises(DamagedError, match=f"block {block} "):
            read(_core.Disk(), shard, len(DATA), bytes(wrong), [(block * BLOCK, to.ctypes.data, 1, 1, 0, 0)])


FAULTS = ["EIO", "EINTR", "EINVAL", "EACCES", "cut 0", "cut 100", "cut 5000"]


@pytest.mark.parametrize("always", ["", WITHOUT_DIRECT], ids=["direct", "buffered"])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_call_may_fail(shard: Path, fault: str, always: str) -> None:
    kinds = ["pread"] if fault.startswith("cut") else ["open", "facts", "direct", "pread", "close"]
    ended_well, failed = 0, 0
    for call in kinds:
        for index in range(1, 5):
            for which in (f"{index}", f"{index}+"):
                disk = _core.InjectedDisk(f"{always}; {call} {which} {fault}")
                try:
                    assert read_whole(disk, shard, DATA) == DATA
                    ended_well += 1
                except CheckpointError as error:
                    failed += 1
                    assert str(shard) in str(error)
                    assert isinstance(error, DamagedError) == (fault == "EIO" or fault == "cut 0")
                    assert disk.calls()[call] >= index
    assert ended_well > 0
    if fault == "EIO":
        assert failed >= 5


OUTSIDE = [
    (len(DATA), 1, 1, 0, 1),
    (0, len(DATA) + 1, 1, 0, len(DATA) + 1),
    (2**64 - 1, 2, 1, 0, 2),
    (2**63, 2**63, 1, 0, 2**63),
    (0, 8, 2, 2**64 - 8, 8),
    (0, 8, 2**63, 2, 8),
    (0, 8, 2**64 - 1, 2**64 - 1, 8),
    (5, 1, len(DATA), 1, 1),
]


@pytest.mark.parametrize("run", OUTSIDE)
def test_numbers_beyond_the_file(shard: Path, run: tuple[int, int, int, int, int]) -> None:
    to = np.zeros(16, np.uint8)
    with pytest.raises(UsageError, match="run 0 reaches beyond the file"):
        read(_core.Disk(), shard, len(DATA), CRCS, [(run[0], to.ctypes.data, *run[1:])])
    assert not to.any()


def test_plans_that_contradict_themselves(shard: Path) -> None:
    to = np.zeros(16, np.uint8)
    address = to.ctypes.data
    for run, what in [
        ((0, 0, 4, 1, 0, 0), "no memory to go to"),
        ((0, address, 4, 2, 4, 3), "overlap in memory"),
        ((0, address, 4, 3, 0, 2**63), "beyond all memory"),
        ((0, 2**64 - 2, 4, 1, 0, 0), "beyond all memory"),
    ]:
        with pytest.raises(UsageError, match=what):
            read(_core.Disk(), shard, len(DATA), CRCS, [run])
    for block in (0, 1, 4095, 32 * MIB, 2**64 - 4096):
        with pytest.raises(UsageError, match="blocks of"):
            read(_core.Disk(), shard, len(DATA), CRCS, [], block=block)
    for crcs in (b"", CRCS[4:], CRCS + b"1234", CRCS[:-1]):
        with pytest.raises(UsageError, match="checksums|whole numbers"):
            read(_core.Disk(), shard, len(DATA), crcs, [])
    with pytest.raises(UsageError, match="checksums"):
        read(_core.Disk(), shard, 2**64 - 1, CRCS, [])


@pytest.mark.parametrize(
    "script", ["pwrite", "pwrite 0 EIO", "nix 1 EIO", "open 2-1 EIO", "open 1 E", "pread 1 cut"]
)
def test_a_script_that_says_nothing(script: str) -> None:
    with pytest.raises(UsageError, match="no fault of a disk"):
        _core.InjectedDisk(script)
