"""Reads every byte of a step and names what is damaged."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ..errors import DamagedError, NoCheckpointError
from ..values import names
from ..values.dtypes import itemsize
from . import folder, safetensors_header
from .files import opened, read_at
from .manifest import FILE_NAME, Manifest, Shard

Progress = Callable[[int], None]  # bytes that were read since the last call


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes `begin` to `end` of a file; `block` is None for what concerns the file as a whole."""

    file: str
    block: int | None
    begin: int
    end: int
    why: str
    tensors: tuple[str, ...] = ()  # that have bytes there

    def __str__(self) -> str:
        where = "" if self.block is None else f", block {self.block} (bytes {self.begin} to {self.end})"
        what = ", ".join(names.shown(name, 60) for name in self.tensors[:3])
        more = f" and {len(self.tensors) - 3} more" if len(self.tensors) > 3 else ""
        return f"{self.file}{where}: {self.why}" + (f"; holds {what}{more}" if what else "")


@dataclass(frozen=True, slots=True)
class Report:
    path: Path | str  # a folder, or a URL
    step: int
    bytes_read: int
    damages: tuple[Damage, ...]

    @property
    def sound(self) -> bool:
        return not self.damages


def verify_step(path: Path, progress: Progress | None = None) -> Report:
    """Checks manifest, sizes, headers and all checksums of the step in this folder. Damage is reported, not
    raised; a folder without a manifest is, as NoCheckpointError."""
    step = folder.read_step(path)
    if step is None:
        raise NoCheckpointError(f"{path} holds no step: it has no manifest")
    if step.manifest is None:
        return Report(path, step.step, 0, (Damage(FILE_NAME, None, 0, 0, step.faults[0]),))
    damages = [Damage(name, None, 0, 0, "the file is missing") for name in step.missing]
    if (named := folder.step_of(path)) not in (None, step.step):
        damages.append(Damage(FILE_NAME, None, 0, 0, f"of step {step.step}, not {named}"))
    count = _Counter(progress)
    for index, shard in enumerate(step.manifest.shards):
        if shard.file in step.missing:
            continue
        try:
            damages += _check_shard(path, step.manifest, index, count)
        except (DamagedError, OSError) as error:
            damages.append(Damage(shard.file, None, 0, 0, str(error)))
    return Report(path, step.step, count.bytes, tuple(damages))


class _Counter:
    def __init__(self, progress: Progress | None) -> None:
        self.bytes = 0
        self._progress = progress

    def add(self, more: int) -> None:
        self.bytes += more
        if self._progress is not None:
            self._progress(more)


@dataclass(slots=True)
class _Span:
    """A piece in a shard, and the checksum of what was seen of it."""

    begin: int
    end: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    expected: int
    crc: int = 0


def _spans(manifest: Manifest, index: int) -> list[_Span]:
    found = [
        _Span(
            piece.offset,
            piece.offset + piece.box.size * itemsize(tensor.dtype),
            name,
            tensor.dtype,
            piece.box.shape,
            piece.crc32,
        )
        for name, tensor in manifest.tensors.items()
        for piece in tensor.pieces
        if piece.shard == index
    ]
    return sorted(found, key=lambda span: (span.begin, span.end))


def _check_shard(path: Path, manifest: Manifest, index: int, count: _Counter) -> Iterator[Damage]:
    shard = manifest.shards[index]
    spans = _spans(manifest, index)
    with opened(path, shard.file) as (file, size):
        if size != shard.bytes:
            yield Damage(shard.file, None, 0, 0, f"it has {size} bytes, not {shard.bytes}")
        bad_blocks = False
        first = 0  # span that may still have bytes in what comes
        for block in range(-(-shard.bytes // manifest.block_bytes)):
            begin = block * manifest.block_bytes
            end = min(begin + manifest.block_bytes, shard.bytes)
            data = read_at(file, begin, end - begin)
            count.add(len(data))
            while first < len(spans) and spans[first].end <= begin:
                first += 1
            touched = _feed(spans, first, begin, end, data)
            if len(data) != end - begin or zlib.crc32(data) != shard.crc(block):
                bad_blocks = True
                why = "the file ends before it" if len(data) < end - begin else "its checksum differs"
                yield Damage(shard.file, block, begin, end, why, tuple(span.name for span in touched))
        if bad_blocks:
            return
        for span in spans:
            if span.crc != span.expected:
                why = "blocks and tensor have checksums that cannot both be right"
                yield Damage(shard.file, None, span.begin, span.end, why, (span.name,))
        yield from _check_header(file, shard, spans)


def _feed(spans: list[_Span], first: int, begin: int, end: int, data: bytes) -> list[_Span]:
    """The spans that have bytes in a block; their checksums go on."""
    touched = []
    for span in islice(spans, first, None):
        if span.begin >= end:
            break
        part = memoryview(data)[max(span.begin - begin, 0) : max(span.end - begin, 0)]
        if span.begin < span.end:
            span.crc = zlib.crc32(part, span.crc)
            touched.append(span)
    return touched


def _check_header(file: int, shard: Shard, spans: list[_Span]) -> Iterator[Damage]:
    """The shard's own header tells other tools the same as the manifest tells us."""
    header = safetensors_header.parse(read_at(file, 0, shard.data_offset), shard.bytes, what=shard.file)
    entries = {(entry.begin, entry.dtype, entry.shape) for entry in header.tensors.values()}
    for span in spans:
        if (span.begin, span.dtype, span.shape) not in entries:
            yield Damage(shard.file, None, span.begin, span.end, "its header has other tensors", (span.name,))
