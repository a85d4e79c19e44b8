"""`ckpt gc` and `ckpt reshard`: what stays, and the same values in other files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pccl_py.checkpoint import folder
from pccl_py.checkpoint.diff import compare
from pccl_py.checkpoint.plain_reader import read_tensor
from pccl_py.checkpoint.plain_writer import source_of_array, write_step
from pccl_py.checkpoint.verify import verify_step
from pccl_py.cli import main

ARRAYS = {
    "model/large": np.arange(1 << 20, dtype="<f4").reshape(1024, 1024),
    "model/odd": np.arange(700_001, dtype="<f8"),
    "model/small": np.arange(7, dtype="<i2"),
    "model/none": np.zeros((0, 3), "<f4"),
    "model/scalar": np.array(3.5, "<f8"),
}


def save(root: Path, step: int) -> Path:
    sources = [source_of_array(name, array) for name, array in ARRAYS.items()]
    write_step(root, step, sources, objects={"model": {name: {"$tensor": name} for name in ARRAYS}})
    return folder.step_path(root, step)


@pytest.mark.parametrize("shards", [1, 2, 3, 5])
def test_a_resharded_step_holds_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shards: int
) -> None:
    before = save(tmp_path / "a", 7)
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(["ckpt", "reshard", *paths, "--shards", str(shards), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shards"] == shards
    found = folder.find(tmp_path / "b")
    assert found.step == 7 and found.manifest is not None and verify_step(found.path).sound
    sizes = [shard.bytes for shard in found.manifest.shards]
    assert max(sizes) < 1.2 * min(sizes) + (1 << 20)
    for name, array in ARRAYS.items():
        data = read_tensor(found.path, found.manifest, name)
        assert np.array_equal(np.frombuffer(data, array.dtype).reshape(array.shape), array), name
    first = folder.find(tmp_path / "a")
    assert first.path == before and first.manifest is not None
    assert compare(first.path, first.manifest, found.path, found.manifest).same
    assert found.manifest.objects == first.manifest.objects


def test_a_damaged_step_is_not_resharded_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shard,) = save(tmp_path / "a", 7).glob("shard-*")
    data = bytearray(shard.read_bytes())
    data[100_000] ^= 1
    shard.write_bytes(data)
    assert main(["ckpt", "reshard", str(tmp_path / "a"), str(tmp_path / "b"), "--shards", "2"]) != 0
    assert shard.name in capsys.readouterr().err
    assert folder.scan(tmp_path / "b").steps == folder.scan(tmp_path / "b").leftovers == ()


def test_gc_keeps_what_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in range(1, 8):
        save(tmp_path, step)
    (tmp_path / "step-000000000009").mkdir()
    (tmp_path / "step-000000000009" / "shard-00000-of-00001.safetensors.part").write_bytes(b"x")
    assert main(["ckpt", "gc", str(tmp_path), "--keep", "2", "--keep-every", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"removed": [1, 2, 4, 5], "kept": [3, 6, 7], "leftovers": ["step-000000000009"]}
    assert [step.step for step in folder.scan(tmp_path).steps] == [3, 6, 7]
    with folder.hold(tmp_path):
        assert main(["ckpt", "gc", str(tmp_path), "--keep", "1"]) != 0  # somebody saves there
    assert "held by another saver" in capsys.readouterr().err
