"""Reads every byte of a step at its URL and names what is damaged; nothing is written."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from ..errors import CheckpointError, DamagedError
from ..values.dtypes import itemsize
from .download import Downloader
from .manifest import FILE_NAME, Manifest, Shard
from .remote_level import RemoteLevel, RemoteStep
from .verify import Damage, Progress, Report


def verify_remote(
    level: RemoteLevel, downloader: Downloader, step: int, progress: Progress | None = None
) -> Report:
    """Damage is reported, not raised; a step that is not there is, as NoCheckpointError."""
    found = level.look(step)
    url = level.where(step, "").rstrip("/")
    try:
        made = level.manifest(found)
    except DamagedError as error:
        return Report(url, step, 0, (Damage(FILE_NAME, None, 0, 0, str(error)),))
    damages: list[Damage] = []
    count = 0
    for index, shard in enumerate(made.shards):
        for damage, size in _check(downloader, found, made, index, shard):
            damages += [damage] if damage is not None else []
            count += size
            if progress is not None:
                progress(size)
    return Report(url, step, count, tuple(damages))


def _check(
    downloader: Downloader, found: RemoteStep, manifest: Manifest, index: int, shard: Shard
) -> Iterator[tuple[Damage | None, int]]:
    """Per block, what is wrong with it, and its bytes."""
    end = 0
    try:
        for number, data in downloader.portions(found, manifest, shard):
            begin, end = end, end + len(data)
            damage = None
            if zlib.crc32(data) != shard.crc(number):
                names = _names(manifest, index, begin, end)
                damage = Damage(shard.file, number, begin, end, "its checksum differs", names)
            yield damage, len(data)
    except CheckpointError as error:
        yield (
            Damage(shard.file, None, end, shard.bytes, str(error), _names(manifest, index, end, shard.bytes)),
            0,
        )


def _names(manifest: Manifest, index: int, begin: int, end: int) -> tuple[str, ...]:
    """Of tensors that have bytes there."""
    return tuple(
        name
        for name, tensor in manifest.tensors.items()
        for piece in tensor.pieces
        if piece.shard == index
        and piece.offset < end
        and piece.offset + piece.box.size * itemsize(tensor.dtype) > begin
    )
