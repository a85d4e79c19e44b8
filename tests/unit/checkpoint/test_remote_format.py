"""Compressed objects by hostile writers: refused with words, never more memory than what was asked for."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pccl_py.checkpoint import remote_format
from pccl_py.checkpoint.remote_format import TRAILER, ZSTD, Frame, Index
from pccl_py.errors import DamagedError

CALM = settings(deadline=None, suppress_health_check=list(HealthCheck))
MIB = 1 << 20


def written(data: bytes, frame_bytes: int = MIB, width: int = 4) -> bytes:
    frames, stored = [], []
    for begin in range(0, len(data), frame_bytes):
        frame, packed = remote_format.encode_frame(data[begin : begin + frame_bytes], width)
        frames.append(frame)
        stored.append(packed)
    return b"".join([*stored, remote_format.encode_end(Index(frame_bytes, len(data), tuple(frames)))])


def read(stored: bytes, raw_bytes: int) -> bytes:
    """As a download does: trailer, index, then frame by frame."""
    size = len(stored)
    more = remote_format.index_bytes(stored[-TRAILER.size :], raw_bytes, size, "it")
    index = remote_format.decode_end(stored[size - TRAILER.size - more :], raw_bytes, size, "it")
    found, begin = [], 0
    for number, frame in enumerate(index.frames):
        part = stored[begin : begin + frame.stored]
        found.append(remote_format.decode_frame(part, frame, index.raw_bytes(number), "it"))
        begin += frame.stored
    return b"".join(found)


def sealed(stored: bytes) -> bytes:
    """With a checksum that fits, as a hostile writer makes it."""
    frames = struct.unpack_from("<I", stored, len(stored) - 8)[0]
    begin = max(len(stored) - TRAILER.size - frames * remote_format.ENTRY.size, 0)
    return stored[:-4] + struct.pack("<I", zlib.crc32(stored[begin:-4]))


RAW = np.arange(600_001, dtype="<f4").tobytes() + b"odd"  # three frames, the last one short
OBJECT = written(RAW)


@contextmanager
def memory_below(most: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most, f"{peak >> 20} MiB"


@pytest.mark.parametrize("raw", [RAW, b"", b"x", bytes(3 * MIB), RAW[: 2 * MIB]])
@pytest.mark.parametrize("width", [1, 2, 8])
def test_what_was_written_is_read(raw: bytes, width: int) -> None:
    stored = written(raw, width=width)
    assert read(stored, len(raw)) == raw


@given(st.data())
@settings(CALM, max_examples=200)
def test_a_changed_object_is_refused_or_has_the_length(data: st.DataObject) -> None:
    changed = bytearray(OBJECT)
    end = data.draw(st.sampled_from([len(OBJECT), TRAILER.size + 3 * remote_format.ENTRY.size, 40]))
    for _ in range(data.draw(st.integers(1, 3))):
        changed[-1 - data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        changed = bytearray(sealed(bytes(changed)))
    try:
        assert len(read(bytes(changed), len(RAW))) == len(RAW)
    except DamagedError as error:
        assert str(error).startswith("it: ")


@given(st.binary(max_size=200), st.integers(0, 1 << 40))
@settings(CALM, max_examples=200)
def test_any_bytes_are_refused(data: bytes, raw_bytes: int) -> None:
    for stored in (data, data + OBJECT[-TRAILER.size :], sealed(data + OBJECT[-TRAILER.size :])):
        with pytest.raises(DamagedError):
            read(stored, raw_bytes)


@pytest.mark.parametrize("declared", [True, False])
def test_a_decompression_bomb_is_refused_before_it_is_one(declared: bool) -> None:
    """A GiB of zeros, in 32 KiB."""
    packer = zstandard.ZstdCompressor(write_content_size=declared).compressobj(1 << 30 if declared else -1)
    zeros = bytes(16 * MIB)
    bomb = b"".join([*(packer.compress(zeros) for _ in range(64)), packer.flush()])
    with memory_below(4 * MIB), pytest.raises(DamagedError, match="another size"):
        remote_format.decode_frame(bomb, Frame(len(bomb), ZSTD, 4), 2 * MIB, "it")


def test_a_bomb_that_says_the_right_size_is_cut_off() -> None:
    """The header says 1 MiB, the blocks behind it are 64."""
    true = zstandard.ZstdCompressor().compress(bytes(64 * MIB))
    said = zstandard.ZstdCompressor().compress(bytes(MIB))
    header = zstandard.frame_header_size(said)
    lying = said[:header] + true[zstandard.frame_header_size(true) :]
    with memory_below(4 * MIB), pytest.raises(DamagedError, match="cannot be decoded|decodes to"):
        remote_format.decode_frame(lying, Frame(len(lying), ZSTD, 1), MIB, "it")


def test_more_than_one_frame_in_a_frame_is_refused() -> None:
    packed = zstandard.ZstdCompressor().compress(bytes(MIB))
    for more in (packed, b"x", struct.pack("<II", 0x184D2A50, 4) + b"skip"):
        with pytest.raises(DamagedError):
            remote_format.decode_frame(packed + more, Frame(len(packed + more), ZSTD, 1), MIB, "it")


def test_an_index_is_smaller_than_its_shard() -> None:
    """Frames of one byte would make a reader hold eight bytes, and a tuple, for each byte of a shard."""
    for frame_bytes, frames in ((1, (1 << 32) - 1), (4096, 1 << 21)):
        trailer = TRAILER.pack(
            remote_format.MAGIC, remote_format.VERSION, frame_bytes, frames * frame_bytes, frames, 0
        )
        with pytest.raises(DamagedError, match="frames of"):
            remote_format.index_bytes(trailer, frames * frame_bytes, 1 << 40, "it")
