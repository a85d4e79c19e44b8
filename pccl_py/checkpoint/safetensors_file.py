"""Safetensors files of anybody: their header, and each tensor's bytes."""

from __future__ import annotations

from pathlib import Path

from ..errors import DamagedError
from .files import explained, opened, read_at
from .safetensors_header import PREFIX_BYTES, Entry, Header, header_bytes, parse


def read_header(path: Path) -> Header:
    """The header of a file. Raises DamagedError where it is none, CheckpointError where it cannot be read."""
    path = path.resolve()  # caches of downloads are full of links, and the caller named this one
    with explained(f"read {path}"), opened(path.parent, path.name) as (file, size):
        length = header_bytes(read_at(file, 0, PREFIX_BYTES), size, what=str(path))
        return parse(read_at(file, 0, length), size, what=str(path))


def read_entry(path: Path, entry: Entry) -> bytes:
    """A tensor's bytes. Nothing in such a file tells whether they are those that were saved."""
    path = path.resolve()
    with explained(f"read {path}"), opened(path.parent, path.name) as (file, _):
        data = read_at(file, entry.begin, entry.end - entry.begin)
    if len(data) != entry.end - entry.begin:
        raise DamagedError(f"{path} became shorter while it was read")
    return data
