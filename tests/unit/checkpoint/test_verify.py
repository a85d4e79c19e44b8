"""Every flipped bit, cut and exchanged file of a step is found and named."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from pccl_py.checkpoint import folder
from pccl_py.checkpoint.boxes import Box
from pccl_py.checkpoint.plain_reader import read_tensor
from pccl_py.checkpoint.plain_writer import BlockSums, Source, source_of_array, write_shard, write_step
from pccl_py.checkpoint.rank_record import RankRecord, decode_record, encode_record, merge
from pccl_py.checkpoint.verify import verify_step
from pccl_py.errors import CheckpointError, DamagedError, NoCheckpointError, StateError

W = np.arange(12_000, dtype=np.float32).reshape(60, 200)
B = np.arange(7, dtype=np.int8)
SHARD = "shard-00000-of-00001.safetensors"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_step(tmp_path, 5, [source_of_array("b", B), source_of_array("w", W)], block_bytes=4096)
    return folder.step_path(tmp_path, 5)


def flip(file: Path, position: int, bit: int = 0) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1 << bit
    file.write_bytes(data)


def test_a_sound_step_is_sound_and_every_byte_was_read(path: Path) -> None:
    seen: list[int] = []
    report = verify_step(path, seen.append)
    assert report.sound and report.step == 5
    assert report.bytes_read == sum(seen) == (path / SHARD).stat().st_size


def test_every_flipped_bit_is_named_by_block_and_tensor(path: Path) -> None:
    rng = random.Random(7)
    size = (path / SHARD).stat().st_size
    for position in [0, 7, 8, 4095, 4096, size - 1, *(rng.randrange(size) for _ in range(60))]:
        bit = rng.randrange(8)
        flip(path / SHARD, position, bit)
        (damage,) = verify_step(path).damages
        assert damage.block == position // 4096 and damage.begin <= position < damage.end
        assert str(damage).startswith(
            f"{SHARD}, block {damage.block} (bytes {damage.begin} to {damage.end}): "
        )
        if 4096 <= position < 4096 + W.nbytes:
            assert "w" in damage.tensors
        flip(path / SHARD, position, bit)
    assert verify_step(path).sound


def test_cut_grown_missing_and_exchanged_files_are_named(path: Path, tmp_path: Path) -> None:
    good = (path / SHARD).read_bytes()
    os.truncate(path / SHARD, 9000)
    report = verify_step(path)
    assert "9000 bytes" in report.damages[0].why
    assert [damage.block for damage in report.damages[1:]] == list(range(2, -(-len(good) // 4096)))
    (path / SHARD).write_bytes(good + b"\0")
    assert "bytes, not" in verify_step(path).damages[0].why
    write_step(tmp_path, 6, [source_of_array("b", B), source_of_array("w", W + 1)], block_bytes=4096)
    (path / SHARD).write_bytes((folder.step_path(tmp_path, 6) / SHARD).read_bytes())
    assert len(verify_step(path).damages) > 10
    (path / SHARD).unlink()
    assert verify_step(path).damages[0].why == "the file is missing"
    (path / SHARD).symlink_to("/etc/passwd")
    assert "link" in verify_step(path).damages[0].why
    (path / "manifest.json").write_bytes(b"{}")
    assert verify_step(path).damages[0].file == "manifest.json"
    (path / "manifest.json").unlink()
    with pytest.raises(NoCheckpointError):
        verify_step(path)


def test_checksums_and_headers_that_contradict_each_other_are_found(path: Path) -> None:
    step = folder.read_step(path)
    assert step is not None and step.manifest is not None
    from dataclasses import replace

    from pccl_py.checkpoint import manifest as manifests

    tensor = step.manifest.tensors["w"]
    wrong = replace(tensor, pieces=(replace(tensor.pieces[0], crc32=1),))
    made = replace(step.manifest, tensors={**step.manifest.tensors, "w": wrong})
    (path / "manifest.json").write_bytes(manifests.encode(made))
    assert "cannot both be right" in verify_step(path).damages[0].why
    other = replace(tensor, dtype="I32")
    made = replace(step.manifest, tensors={**step.manifest.tensors, "w": other})
    (path / "manifest.json").write_bytes(manifests.encode(made))
    assert "header" in verify_step(path).damages[0].why


def test_safetensors_opens_our_shards(path: Path) -> None:
    found = safetensors.numpy.load_file(path / SHARD)
    assert np.array_equal(found["w"], W) and np.array_equal(found["b"], B)
    with safetensors.safe_open(path / SHARD, "numpy") as file:
        assert np.array_equal(file.get_slice("w")[3:5, 7:9], W[3:5, 7:9])


def test_pieces_of_several_ranks_make_one_tensor(tmp_path: Path) -> None:
    path = folder.begin(tmp_path, 9)
    records = []
    for rank, boxes in enumerate(
        [
            [Box((0, 0), (20, 200)), Box((40, 0), (20, 100))],
            [Box((20, 0), (20, 200)), Box((40, 100), (20, 100))],
            [],
        ]
    ):
        sources = [
            Source("w", "F32", W.shape, lambda box=box: W[box.slices()].tobytes(), box)  # type: ignore[misc]
            for box in [*boxes, Box((0, 0), (20, 200))][: 3 if rank else 2]  # a replica of rank 0's on rank 1
        ]
        record = write_shard(path, rank, 3, sources, 4096) if boxes else RankRecord(rank)
        record = RankRecord(
            rank, record.shard, record.tensors, {"model": [1]} if rank < 2 else {}, {"rng": rank}
        )
        records.append(decode_record(encode_record(record), 4096))
        assert records[-1] == record
    made = merge(reversed(records), step=9, time=1.0, world=3, block_bytes=4096, notes={"a": "b"})
    folder.commit(path, made)
    assert verify_step(path).sound
    step = folder.read_step(path)
    assert step is not None and step.complete and step.manifest == made
    assert [piece.shard for piece in made.tensors["w"].pieces] == [0, 0, 1, 1]
    assert made.private == {0: {"rng": 0}, 1: {"rng": 1}, 2: {"rng": 2}}
    assert read_tensor(path, made, "w") == W.tobytes()
    box = Box((15, 90), (40, 60))
    assert read_tensor(path, made, "w", box) == W[box.slices()].tobytes()
    flip(path / made.shards[1].file, 4096 + 5)
    with pytest.raises(DamagedError, match=r"shard-00001-of-00003.*blocks 1 to 4"):
        read_tensor(path, made, "w")
    assert read_tensor(path, made, "w", Box((0, 0), (5, 5)))[:4] == W[:1, :1].tobytes()
    with pytest.raises(CheckpointError, match="not all of"):
        read_tensor(path, made, "w", Box((0, 0), (61, 1)))
    with pytest.raises(NoCheckpointError):
        read_tensor(path, made, "v")


def test_records_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    path = folder.begin(tmp_path, 1)
    a = write_shard(path, 0, 2, [source_of_array("w", W)])
    b = write_shard(path, 1, 2, [source_of_array("w", W.astype(np.float64))])
    with pytest.raises(StateError, match=r"rank 1 has 'w' as F64"):
        merge([a, b], step=1, time=0, world=2)
    with pytest.raises(StateError, match="ranks \\[0\\]"):
        merge([a], step=1, time=0, world=2)
    with pytest.raises(StateError, match="private part"):
        merge([RankRecord(0, objects={"m": 1}), RankRecord(1, objects={"m": 2})], step=1, time=0, world=2)
    with pytest.raises(DamagedError):
        decode_record(b'{"rank":-1}', 4096)
    with pytest.raises(StateError):
        encode_record(RankRecord(0, objects={"m": float("inf")}))


def test_block_sums_do_not_depend_on_portions() -> None:
    import zlib

    data = random.Random(3).randbytes(10_000)
    expected = [zlib.crc32(data[begin : begin + 4096]) for begin in range(0, len(data), 4096)]
    for portion in (1, 7, 4096, 5000, 10_000):
        sums = BlockSums(4096)
        for begin in range(0, len(data), portion):
            sums.add(data[begin : begin + portion])
        assert np.frombuffer(sums.words(), "<u4").tolist() == expected
    assert BlockSums(4096).words() == b""


def test_torn_reads_are_not_returned(path: Path) -> None:
    step = folder.read_step(path)
    assert step is not None and step.manifest is not None
    os.truncate(path / SHARD, 5000)
    with pytest.raises(DamagedError, match="fetch this file anew"):
        read_tensor(path, step.manifest, "w")
