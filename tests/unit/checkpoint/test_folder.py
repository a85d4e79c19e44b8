"""A step exists by its manifest; what crashes leave is swept; nothing outside of the folder is touched."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pccl_py.checkpoint import files, folder, manifest
from pccl_py.checkpoint.plain_reader import read_tensor
from pccl_py.checkpoint.plain_writer import Source, source_of_array, write_step
from pccl_py.checkpoint.retention import keepers
from pccl_py.errors import BusyError, CheckpointError, DamagedError, NoCheckpointError, StateError, UsageError
from pccl_py.values.limits import STEP_MAX

ARRAY = np.arange(3000, dtype=np.float32).reshape(30, 100)


def saved(root: Path, step: int) -> Path:
    write_step(root, step, [source_of_array("w", ARRAY + step)], block_bytes=4096)
    return folder.step_path(root, step)


def test_a_committed_step_is_found_and_read(tmp_path: Path) -> None:
    assert folder.scan(tmp_path / "not there").steps == ()
    for step in (300, 1200, 20):
        saved(tmp_path, step)
    found = folder.scan(tmp_path)
    assert [step.step for step in found.steps] == [20, 300, 1200]
    assert all(step.complete for step in found.steps) and found.leftovers == ()
    assert found.latest is not None and found.latest.step == 1200
    for step in found.steps:
        assert step.manifest is not None
        assert read_tensor(step.path, step.manifest, "w") == (ARRAY + step.step).tobytes()
    assert folder.find(tmp_path, 300).step == 300
    with pytest.raises(NoCheckpointError, match="no step 7 in .*20, 300, 1200"):
        folder.find(tmp_path, 7)
    with pytest.raises(NoCheckpointError, match="no complete step"):
        folder.find(tmp_path / "elsewhere")


def test_without_its_manifest_a_step_does_not_exist(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    path = saved(tmp_path, 2)
    shards = folder.retire(path)
    assert [shard.name for shard in shards] == ["shard-00000-of-00001.safetensors"]
    found = folder.scan(tmp_path)
    assert [step.step for step in found.steps] == [1] and found.leftovers == (path,)
    assert folder.sweep(tmp_path) == [path] and not path.exists()
    assert folder.scan(tmp_path).leftovers == ()


def test_damaged_steps_are_shown_and_kept(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    flipped, short, gone, moved = (saved(tmp_path, step) for step in (2, 3, 4, 5))
    data = bytearray((flipped / "manifest.json").read_bytes())
    data[200] ^= 1
    (flipped / "manifest.json").write_bytes(data)
    shard = "shard-00000-of-00001.safetensors"
    os.truncate(short / shard, 4097)
    (gone / shard).unlink()
    moved.rename(folder.step_path(tmp_path, 6))
    steps = {step.path.name[-1]: step for step in folder.scan(tmp_path).steps}
    assert [name for name, step in steps.items() if step.complete] == ["1"]
    assert "checksum" in steps["2"].faults[0] and steps["2"].step == 2
    assert "4097 bytes" in steps["3"].faults[0]
    assert steps["4"].missing == (shard,) and not steps["4"].faults
    assert "of step 5" in steps["6"].faults[0]
    assert folder.find(tmp_path).step == 1
    assert folder.sweep(tmp_path) == [] and len(folder.scan(tmp_path).steps) == 5


def test_leftovers_of_ours_are_swept_and_files_of_others_stay(tmp_path: Path) -> None:
    path = saved(tmp_path, 1)
    (path / "shard-00003-of-00008.safetensors.part").touch()
    (path / "manifest.json.part").touch()
    (path / "notes.txt").touch()
    (path / "downloading.part").touch()
    mixed = folder.step_path(tmp_path, 2)
    mixed.mkdir()
    (mixed / "shard-00000-of-00001.safetensors").touch()
    (mixed / "thesis.txt").touch()
    written_now = folder.step_path(tmp_path, 3)
    written_now.mkdir()
    (tmp_path / "step-3").mkdir()
    (tmp_path / "readme").touch()
    folder.sweep(tmp_path, keep=[written_now])
    assert sorted(os.listdir(path)) == sorted(
        ["downloading.part", "manifest.json", "notes.txt", "shard-00000-of-00001.safetensors"]
    )
    assert os.listdir(mixed) == ["thesis.txt"] and written_now.exists()
    assert (tmp_path / "step-3").exists() and (tmp_path / "readme").exists()
    assert not folder.remove(mixed) and folder.remove(written_now)


def test_a_step_that_is_named_is_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its own folder does not have it, all are looked at, and the error says what is there."""
    for step in (1, 2, 3):
        saved(tmp_path, step)
    read: list[str] = []
    decode = manifest.decode

    def counted(data: bytes, *, what: str) -> manifest.Manifest:
        read.append(what)
        return decode(data, what=what)

    monkeypatch.setattr(manifest, "decode", counted)
    assert folder.find(tmp_path, 2).step == 2 and len(read) == 1 and "step-000000000002" in read[0]
    (tmp_path / "elsewhere").mkdir()
    folder.step_path(tmp_path, 3).rename(tmp_path / "elsewhere/step")
    folder.step_path(tmp_path, 3).symlink_to(tmp_path / "elsewhere/step")
    folder.step_path(tmp_path, 1).rename(folder.step_path(tmp_path, 7))
    for step in (-1, 3, 7, STEP_MAX + 1):
        with pytest.raises(NoCheckpointError, match=f"no step {step} in .*; steps there: "):
            folder.find(tmp_path, step)
    (folder.step_path(tmp_path, 2) / "manifest.json").write_text("{}")
    assert folder.find(tmp_path, 2).manifest is None and folder.find(tmp_path, 2).faults


def test_links_are_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    path = saved(root, 1)
    shard = path / "shard-00000-of-00001.safetensors"
    shard.rename(outside / "shard")
    shard.symlink_to(outside / "shard")
    (found,) = folder.scan(root).steps
    assert not found.complete and "link" in found.faults[0]
    assert found.manifest is not None
    with pytest.raises(DamagedError, match="link"):
        read_tensor(path, found.manifest, "w")
    (root / "step-000000000002").symlink_to(outside)  # a folder as a link
    assert len(folder.scan(root).steps) == 1
    leftover = folder.begin(root, 3)
    (leftover / "shard-00000-of-00001.safetensors").symlink_to(outside / "shard")
    assert folder.retire(leftover) == []
    assert folder.sweep(root) == [leftover]
    assert (outside / "shard").stat().st_size > 4096
    (path / "manifest.json").rename(outside / "manifest.json")
    (path / "manifest.json").symlink_to(outside / "manifest.json")
    (found,) = folder.scan(root).steps
    assert found.manifest is None and "link" in found.faults[0]


def test_what_is_no_file_does_not_hang(tmp_path: Path) -> None:
    path = saved(tmp_path, 1)
    shard = path / "shard-00000-of-00001.safetensors"
    shard.unlink()
    os.mkfifo(shard)
    (found,) = folder.scan(tmp_path).steps
    assert "no regular file" in found.faults[0]
    (path / "manifest.json").unlink()
    os.mkfifo(path / "manifest.json")
    (found,) = folder.scan(tmp_path).steps
    assert "no regular file" in found.faults[0]


def test_a_hard_linked_copy_is_not_written_over(tmp_path: Path) -> None:
    path = saved(tmp_path, 1)
    os.link(path / "shard-00000-of-00001.safetensors", tmp_path / "copy")
    assert folder.retire(path) == []


def test_an_existing_step_is_not_begun_again(tmp_path: Path) -> None:
    path = saved(tmp_path, 1)
    with pytest.raises(BusyError, match="retire it first"):
        folder.begin(tmp_path, 1)
    folder.retire(path)
    assert folder.begin(tmp_path, 1) == path and os.listdir(path) == []
    for step in (-1, 10**12):
        with pytest.raises(CheckpointError, match="step"):
            folder.begin(tmp_path, step)


def test_a_second_saver_is_refused_with_the_first_one_s_process(tmp_path: Path) -> None:
    with folder.hold(tmp_path / "new"):
        with pytest.raises(BusyError, match=f"process {os.getpid()}"), folder.hold(tmp_path / "new"):
            pass
    with folder.hold(tmp_path / "new"):
        pass


def test_a_step_without_its_shards_is_not_committed(tmp_path: Path) -> None:
    made = folder.find(tmp_path, 1).manifest if saved(tmp_path, 1) else None
    assert made is not None
    path = folder.begin(tmp_path, 2)
    second = replace(made, step=2)
    with pytest.raises(CheckpointError, match="No such file"):
        folder.commit(path, second)
    (path / made.shards[0].file).write_bytes(b"short")
    with pytest.raises(DamagedError, match="5 bytes"):
        folder.commit(path, second)
    folder.commit(path, second, own=[])
    (path / made.shards[0].file).unlink()
    step = folder.read_step(path)
    assert step is not None and step.missing == (made.shards[0].file,) and not step.complete


@pytest.mark.parametrize("call", ["fsync", "rename", "write"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_leaves_the_earlier_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    saved(tmp_path, 1)
    real: Callable[..., object] = getattr(os, call)
    for nth in range(12):
        calls = iter(range(1000))

        def failing(*args: object, calls: object = calls, nth: int = nth) -> object:
            if next(calls) == nth:  # type: ignore[call-overload]
                raise OSError(number, os.strerror(number))
            return real(*args)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            try:
                saved(tmp_path, 2)
            except CheckpointError as error:
                helps = "free space" if number == errno.ENOSPC else "kernel"
                assert helps in str(error)
            else:
                assert next(calls) <= nth
                break
        assert folder.find(tmp_path).step == 1
        folder.sweep(tmp_path)
        assert folder.scan(tmp_path).leftovers == ()
    assert folder.find(tmp_path).step == 2


def test_a_failing_source_removes_what_was_begun(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_step(tmp_path, 1, [Source("w", "U8", (3,), fail)])
    with pytest.raises(StateError, match="2 bytes, not 3"):
        write_step(tmp_path, 1, [Source("w", "U8", (3,), lambda: b"ab")])
    with pytest.raises(StateError, match="cover"):
        write_step(tmp_path, 1, [Source("w", "U8", (3,), lambda: b"ab", manifest.Box((0,), (2,)))])
    assert os.listdir(tmp_path) == []


def test_a_file_is_written_whole_or_not(tmp_path: Path) -> None:
    files.write_durably(tmp_path, "a", b"one")
    (tmp_path / "a.part").symlink_to(tmp_path / "b")
    files.write_durably(tmp_path, "a", b"two")
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"two"


def test_keepers() -> None:
    steps = [100, 200, 300, 400, 500]
    assert keepers(steps) == set(steps)
    assert keepers(steps, keep=2) == {400, 500}
    assert keepers(steps, keep=1, keep_every=200) == {200, 400, 500}
    assert keepers(steps, keep_every=200) == set(steps)
    assert keepers([0, 5], keep=1, keep_every=3) == {0, 5}
    assert keepers([], keep=3) == set()
    assert keepers([7, 7], keep=1) == {7}
    for wrong in ({"keep": 0}, {"keep_every": 0}):
        with pytest.raises(UsageError):
            keepers(steps, **wrong)
