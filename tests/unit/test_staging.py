"""`_core.StagingPool`, `ShardSave` and `crc32` from Python: values, waits, errors, and a killed process."""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from pccl_py import _core
from pccl_py.errors import PcclError, UsageError

SLAB = 16 << 20
BLOCK = 1 << 20


def noise(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, count, np.uint8)


def regions_of(arrays: list[np.ndarray]) -> list[tuple[int, int]]:
    return [(array.ctypes.data, array.nbytes) for array in arrays]


def numbers(crcs: bytes) -> list[int]:
    return [int(crc) for crc in np.frombuffer(crcs, "<u4")]


@pytest.fixture(scope="module")
def pool() -> _core.StagingPool:
    return _core.StagingPool(2 * SLAB)


def saved(pool: _core.StagingPool, path: Path, arrays: list[np.ndarray]) -> _core.ShardSave:
    save = _core.ShardSave(pool, _core.Disk(), str(path), "", b"header", regions_of(arrays))
    save.start()
    return save


def test_crc32_is_zlib_s() -> None:
    data = noise(100_000, 1)
    for size in (0, 1, 15, 64, 255, 4097, 100_000):
        whole = zlib.crc32(data[:size])
        assert _core.crc32(data[:size]) == whole
        cut = size // 3
        first, second = _core.crc32(data[:cut]), _core.crc32(data[cut:size])
        assert _core.crc32(data[cut:size], first) == whole
        assert _core.crc32_combine(first, second, size - cut) == whole
    assert _core.crc32(b"123456789") == 0xCBF43926
    with pytest.raises(ValueError, match="contiguous"):
        _core.crc32(data[::2])


def test_pool() -> None:
    pool = _core.StagingPool(1)
    assert (pool.bytes, pool.slab_bytes, pool.slabs, pool.free) == (SLAB, SLAB, 1, 1)
    ctypes.memset(pool.address, 1, pool.bytes)
    pool.close()
    assert pool.address == 0
    with pytest.raises(UsageError, match="64 TiB"):
        _core.StagingPool(0)
    with pytest.raises(TypeError):
        _core.StagingPool(-1)


def test_pool_in_a_memfd() -> None:
    fd = os.memfd_create("slabs")
    with pytest.raises(UsageError, match="ftruncate"):
        _core.StagingPool(SLAB, fd=fd)
    os.ftruncate(fd, SLAB)
    pool = _core.StagingPool(SLAB, fd=fd)
    ctypes.memset(pool.address + 5, 7, 1)
    assert os.pread(fd, 1, 5) == b"\7"
    os.close(fd)
    pool.close()


def test_file_and_receipt(pool: _core.StagingPool, tmp_path: Path) -> None:
    arrays = [noise(size, size) for size in (5, 0, 40_000_000, 1, 3_000_000, 20_000_000)]
    save = saved(pool, tmp_path / "a", arrays)
    assert save.fence([0, 4], 20.0)
    expected = b"header" + b"".join(array.tobytes() for array in arrays)
    crcs = [zlib.crc32(array) for array in arrays]
    arrays[0][:] = 0
    arrays[4][:] = 0
    assert save.fence(None, 20.0)
    for array in arrays:
        array[:] = 0
    assert save.wait_staged(20.0)
    assert save.staged
    receipt = save.wait_durable(20.0)
    assert receipt is not None
    assert (tmp_path / "a").read_bytes() == expected
    assert receipt.file_bytes == len(expected)
    assert numbers(receipt.region_crcs) == crcs
    blocks = [expected[at : at + BLOCK] for at in range(0, len(expected), BLOCK)]
    assert numbers(receipt.block_crcs) == [zlib.crc32(block) for block in blocks]
    assert save.progress() == (len(expected),) * 3
    assert receipt.durable_seconds >= receipt.staged_seconds > 0
    assert pool.free == pool.slabs
    assert os.listdir(tmp_path) == ["a"]


def test_foreign_regions(pool: _core.StagingPool, tmp_path: Path) -> None:
    arrays = [noise(size, size) for size in (1000, 50_000_000, 2_000_000)]
    regions = regions_of(arrays)
    regions[1] = (0, arrays[1].nbytes)
    save = _core.ShardSave(pool, _core.Disk(), str(tmp_path / "a"), "", b"", regions, foreign=[1])
    save.start()

    def copy_parts() -> None:
        while part := save.next_foreign(20.0):
            region, offset, address, count = part
            assert region == 1
            assert count <= SLAB
            ctypes.memmove(address, arrays[1].ctypes.data + offset, count)
            save.foreign_done(region, offset)

    # On a thread of its own: in a small pool the fence waits for slabs that wait for these parts.
    device = threading.Thread(target=copy_parts)
    device.start()
    assert save.fence([0, 2], 20.0)
    device.join()
    with pytest.raises(UsageError, match="next_foreign"):
        save.foreign_done(1, 0)
    receipt = save.wait_durable(20.0)
    assert receipt is not None
    assert numbers(receipt.region_crcs) == [zlib.crc32(array) for array in arrays]
    assert (tmp_path / "a").read_bytes() == b"".join(array.tobytes() for array in arrays)


def test_errors_reach_every_wait(pool: _core.StagingPool, tmp_path: Path) -> None:
    arrays = [noise(1000, 1)]
    save = saved(pool, tmp_path / "no folder" / "a", arrays)
    with pytest.raises(PcclError, match="no folder"):
        save.wait_durable(20.0)
    with pytest.raises(PcclError, match="no folder"):
        save.wait_staged(20.0)
    assert save.fence(None, 20.0)
    assert pool.free == pool.slabs


def test_cancel(pool: _core.StagingPool, tmp_path: Path) -> None:
    arrays = [noise(60_000_000, 1)]
    save = saved(pool, tmp_path / "a", arrays)
    save.cancel()
    with pytest.raises(PcclError, match="cancelled"):
        save.wait_durable(20.0)
    assert os.listdir(tmp_path) == []
    del save
    assert pool.free == pool.slabs


def test_waits_end_at_their_time(tmp_path: Path) -> None:
    pool = _core.StagingPool(SLAB)
    disk = _core.InjectedDisk("pwrite * delay 300")
    array = noise(3 * SLAB, 1)
    save = _core.ShardSave(pool, disk, str(tmp_path / "a"), "", b"", regions_of([array]))
    save.start()
    before = time.monotonic()
    assert not save.fence(None, 0.05)
    assert not save.wait_staged(0.05)
    assert save.wait_durable(0.05) is None
    assert time.monotonic() - before < 5
    with pytest.raises(UsageError, match="in use"):
        pool.close()
    save.cancel()


def test_senseless_arguments(pool: _core.StagingPool, tmp_path: Path) -> None:
    disk, path = _core.Disk(), str(tmp_path / "a")
    for regions in ([(1,)], [1], [[1, 2]], [(1.5, 2)], 5):
        with pytest.raises(TypeError):
            _core.ShardSave(pool, disk, path, "", b"", regions)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        _core.ShardSave(pool, disk, path, "", b"", [(-1, 5)])
    with pytest.raises(UsageError, match="no memory"):
        _core.ShardSave(pool, disk, path, "", b"", [(0, 5)])
    with pytest.raises(UsageError, match="path"):
        _core.ShardSave(pool, disk, "", "", b"", [])
    with pytest.raises(UsageError, match="block_bytes"):
        _core.ShardSave(pool, disk, path, "", b"", [], block_bytes=1000)
    save = _core.ShardSave(pool, disk, path, "", b"", [])
    with pytest.raises(UsageError, match="not started"):
        save.wait_durable(1.0)
    save.start()
    with pytest.raises(UsageError, match="once"):
        save.start()


def test_a_forked_child_leaves_the_parent_s_save_alone(tmp_path: Path) -> None:
    pool = _core.StagingPool(SLAB)
    disk = _core.InjectedDisk("pwrite * delay 50")
    array = noise(4 * SLAB, 1)
    save = _core.ShardSave(pool, disk, str(tmp_path / "a"), "", b"", regions_of([array]))
    save.start()
    child = os.fork()
    if child == 0:
        save.fence(None, 1.0)
        save.cancel()
        del save, pool, disk
        os._exit(0)
    until = time.monotonic() + 20
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert save.wait_durable(20.0) is not None
    assert (tmp_path / "a").read_bytes() == array.tobytes()


VICTIM = """
import sys
import numpy as np
from pccl_py import _core
pool = _core.StagingPool(16 << 20)
array = np.full(100 << 20, 7, np.uint8)
disk = _core.InjectedDisk(sys.argv[2])
save = _core.ShardSave(pool, disk, sys.argv[1] + "/new", sys.argv[1] + "/retired", b"",
                       [(array.ctypes.data, array.nbytes)])
save.start()
print("started", flush=True)
save.wait_durable(60.0)
print("durable", flush=True)
"""


@pytest.mark.parametrize(
    "script", ["pwrite 4 kill", "fdatasync 1 kill", "rename 2 kill", "pwrite * delay 30"]
)
def test_a_process_killed_in_the_middle(tmp_path: Path, script: str) -> None:
    kept = noise(1_000_000, 1).tobytes()
    (tmp_path / "kept").write_bytes(kept)
    (tmp_path / "retired").write_bytes(kept)
    command = [sys.executable, "-c", VICTIM, str(tmp_path), script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "started\n"
        if "kill" not in script:
            time.sleep(random.Random(os.getpid()).uniform(0.0, 0.1))
            victim.kill()
        assert victim.wait(30) == -signal.SIGKILL
        assert victim.stdout.read() == ""
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "kept").read_bytes() == kept
    assert set(os.listdir(tmp_path)) <= {"kept", "retired", "new.part"}


def test_a_script_that_ends_during_a_save_ends_well(tmp_path: Path) -> None:
    ends = VICTIM.replace("save.wait_durable(60.0)", "sys.exit(0)")
    command = [sys.executable, "-c", ends, str(tmp_path), "pwrite * delay 30"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "new").exists()


PRIORITIES = """
import json, os, sys
from pathlib import Path
import numpy as np
from pccl_py import _core
os.nice(3)
data = np.zeros(40 << 20, np.uint8)
disk, pool = _core.Disk(), _core.StagingPool(64 << 20)
save = _core.ShardSave(pool, disk, sys.argv[1], "", b"\\0" * 4096, [(data.ctypes.data, data.nbytes)],
                       direct=sys.argv[2] == "direct")
save.start()
direct = save.wait_durable(60).direct
found = {}
for task in Path("/proc/self/task").iterdir():
    name, rest = task.joinpath("stat").read_text().split("(", 1)[1].rsplit(")", 1)
    found.setdefault(name, set()).add(int(rest.split()[16]))
print(json.dumps([direct, {name: sorted(nice) for name, nice in found.items()}]))
"""


@pytest.mark.parametrize("way", ["direct", "buffered"])
def test_threads_step_behind_the_one_that_trains_but_those_that_only_wait_for_a_device(
    tmp_path: Path, way: str
) -> None:
    command = [sys.executable, "-c", PRIORITIES, str(tmp_path / "shard"), way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    direct, niceness = json.loads(done.stdout)
    own = os.getpriority(os.PRIO_PROCESS, 0) + 3
    behind = [min(own + 10, 19)]
    assert niceness["pccl-copy"] == behind
    assert niceness["pccl-disk"][-1:] == ([own] if direct else behind)
