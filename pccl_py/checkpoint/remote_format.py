"""A compressed shard object: frames that are read one by one, their index at the end.

    frame ... frame | index: per frame <stored bytes u32, coding u8, width u8, 0 u16> | trailer of 32 bytes

Each frame is `frame_bytes` of the shard file (1 to 64 MiB; the last one is shorter): as it is (coding 0), or
one zstd frame (coding 1) of its byte planes of `width`. Little-endian. Decoders MUST check all of the trailer
and of the index before they read a frame, and a frame's declared size before they decode it; that the bytes
are right, the checksums of the manifest say.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple, NoReturn

import zstandard

from ..errors import DamagedError
from ..values.limits import INT_MAX
from . import byte_planes

MAGIC = b"pccl-zst"
VERSION = 1
FRAME_BYTES = 4 << 20
FRAME_BYTES_MIN = 1 << 20  # or one frame for all: else an index could be larger than its shard
FRAME_BYTES_MAX = 64 << 20  # decoded at once, so it bounds a reader's memory
LEVEL = 1
LEAST_RATIO = 1.05  # below it, decoding is not worth it
TRAILER = struct.Struct("<8sIIQII")  # magic, version, frame_bytes, bytes, frames, crc32 of index and these
ENTRY = struct.Struct("<IBBH")
RAW, ZSTD = 0, 1


class Frame(NamedTuple):
    stored: int  # bytes in the object
    coding: int
    width: int


class Index(NamedTuple):
    frame_bytes: int
    bytes: int  # of the shard file
    frames: tuple[Frame, ...]

    def raw_bytes(self, number: int) -> int:
        return min(self.frame_bytes, self.bytes - number * self.frame_bytes)


def encode_frame(data: bytes, width: int) -> tuple[Frame, bytes]:
    packed = zstandard.ZstdCompressor(level=LEVEL).compress(byte_planes.split(data, width))
    if len(packed) * LEAST_RATIO > len(data):
        return Frame(len(data), RAW, 1), data
    return Frame(len(packed), ZSTD, width), packed


def encode_end(index: Index) -> bytes:
    """Index and trailer."""
    entries = b"".join(ENTRY.pack(*frame, 0) for frame in index.frames)
    begin = TRAILER.pack(MAGIC, VERSION, index.frame_bytes, index.bytes, len(index.frames), 0)[:-4]
    return entries + begin + struct.pack("<I", zlib.crc32(entries + begin))


def index_bytes(trailer: bytes, raw_bytes: int, object_bytes: int, what: str) -> int:
    """How many bytes before the trailer the index has. Raises DamagedError that begins with `what`."""
    _, _, _, frames, _ = _trailer(trailer, raw_bytes, what)
    size = frames * ENTRY.size
    if size + TRAILER.size > object_bytes:
        _refuse(what, f"an index of {frames} frames does not fit into {object_bytes} bytes")
    return size


def decode_end(end: bytes, raw_bytes: int, object_bytes: int, what: str) -> Index:
    """Of index and trailer, as they were read by what `index_bytes` says."""
    entries, trailer = end[: -TRAILER.size], end[-TRAILER.size :]
    _, frame_bytes, _, frames, crc = _trailer(trailer, raw_bytes, what)
    if len(entries) != frames * ENTRY.size or zlib.crc32(end[:-4]) != crc:
        _refuse(what, "the checksum of its index differs")
    found = []
    for number, (stored, coding, width, zero) in enumerate(ENTRY.iter_unpack(entries)):
        raw = min(frame_bytes, raw_bytes - number * frame_bytes)
        sound = stored == raw and width == 1 if coding == RAW else coding == ZSTD and 0 < stored <= raw
        if not sound or width not in byte_planes.WIDTHS or zero:
            _refuse(what, f"frame {number} is described in a way that no writer does")
        found.append(Frame(stored, coding, width))
    if sum(frame.stored for frame in found) + len(end) != object_bytes:
        _refuse(what, "its frames do not add up to its size")
    return Index(frame_bytes, raw_bytes, tuple(found))


def decode_frame(data: bytes, frame: Frame, raw_bytes: int, what: str) -> bytes:
    """The bytes of the shard file; never more than `raw_bytes` are made. Raises DamagedError."""
    if len(data) != frame.stored:
        _refuse(what, f"{len(data)} bytes came where a frame has {frame.stored}")
    if frame.coding == RAW:
        return data
    try:
        declared = zstandard.get_frame_parameters(data)
        if declared.content_size != raw_bytes or declared.dict_id or declared.window_size > FRAME_BYTES_MAX:
            _refuse(what, "a frame declares another size than the index")
        planes = zstandard.ZstdDecompressor(max_window_size=FRAME_BYTES_MAX).decompress(
            data, max_output_size=raw_bytes, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        _refuse(what, f"a frame cannot be decoded: {error}")
    if len(planes) != raw_bytes:
        _refuse(what, f"a frame decodes to {len(planes)} bytes, not {raw_bytes}")
    return byte_planes.join(planes, frame.width)


def _trailer(data: bytes, raw_bytes: int, what: str) -> tuple[int, int, int, int, int]:
    if len(data) != TRAILER.size or data[:8] != MAGIC:
        _refuse(what, "it does not end as a compressed shard does: it is cut off, or something else")
    _, version, frame_bytes, total, frames, crc = TRAILER.unpack(data)
    if version != VERSION:
        _refuse(what, f"version {version} of compressed shards, and this release reads {VERSION}")
    fits = min(FRAME_BYTES_MIN, max(total, 1)) <= frame_bytes <= FRAME_BYTES_MAX
    if not fits or not total == raw_bytes <= INT_MAX:
        _refuse(
            what, f"frames of {frame_bytes} bytes of a shard of {total}, where the manifest says {raw_bytes}"
        )
    if frames != -(-total // frame_bytes):
        _refuse(what, f"{frames} frames of {frame_bytes} bytes cannot be {total} bytes")
    return version, frame_bytes, total, frames, crc


def _refuse(what: str, why: str) -> NoReturn:
    raise DamagedError(f"{what}: {why}; take another step")
