"""A step of the remote comes back into the local folder, through the same commit; every block is checked
first."""

from __future__ import annotations

import os
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ..errors import CheckpointError, DamagedError
from . import folder, remote_format
from . import manifest as manifests
from .files import PART, explained, opened, read_at, sync_folder
from .manifest import FILE_NAME, Manifest, Shard
from .patience import Patience
from .remote_format import TRAILER
from .remote_level import RemoteLevel, RemoteStep
from .remote_store import PACKED, step_folder
from .upload_parts import BLOCK_BYTES_MAX

RANGE_BYTES = 8 << 20
T = TypeVar("T")


class Downloader:
    """Memory: `parallel` ranges, and one more."""

    def __init__(self, level: RemoteLevel, patience: Patience) -> None:
        self._level, self._store, self._patience = level, level.store, patience

    def fetch(self, root: Path, step: int) -> int:
        """Whatever of the step is missing or damaged in its folder; returns the bytes of shard files that
        came.

        Raises NoCheckpointError, DamagedError that names the object, CheckpointError; then the step exists
        here
        only if it did before.
        """
        found = self._call(f"list step {step}", lambda: self._level.look(step))
        made = self._call(f"read the manifest of step {step}", lambda: self._level.manifest(found))
        path = folder.step_path(root, step)
        here = _here(path, made)
        with explained(f"make {path}"):
            path.mkdir(parents=True, exist_ok=True)
        lacking = [shard for shard in made.shards if not _sound(path, made, shard)]
        count = sum(shard.bytes for shard in lacking)
        try:
            self._expect_room(path, count, made)
            for shard in lacking:
                self._shard(path, found, made, shard)
            if not here:
                folder.commit(path, made)
        except BaseException:
            if not here:
                folder.remove(path)
            raise
        return count

    def _expect_room(self, path: Path, count: int, made: Manifest) -> None:
        """Before anything is written: what a stranger's manifest asks for has to be there."""
        _expect_small_blocks(made, str(path))
        if (free := shutil.disk_usage(path).free) < count:
            raise CheckpointError(
                f"{path} needs {count} bytes, and its disk has {free}: free space, or use another"
            )

    def _shard(self, path: Path, found: RemoteStep, manifest: Manifest, shard: Shard) -> None:
        part = path / f"{shard.file}{PART}"
        with explained(f"write {part}"):
            part.unlink(missing_ok=True)
            try:
                with open(part, "xb") as file:
                    for data in self.blocks(found, manifest, shard):
                        file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        folder.publish(path, shard.file)
        with explained(f"write {path}"):
            sync_folder(path)

    def blocks(self, found: RemoteStep, manifest: Manifest, shard: Shard) -> Iterator[bytes]:
        """The shard file, in portions of whole blocks that are right. Raises DamagedError."""
        for number, data in self.portions(found, manifest, shard):
            begin = number * manifest.block_bytes
            if zlib.crc32(data) != shard.crc(number):
                raise DamagedError(
                    f"{self._object(found, shard)}: block {number} (bytes {begin} to "
                    f"{begin + len(data)} of the shard) "
                    "is not what was saved; take another step"
                )
            yield data

    def portions(self, found: RemoteStep, manifest: Manifest, shard: Shard) -> Iterator[tuple[int, bytes]]:
        """Block by block, not checked. Raises DamagedError where the object as a whole cannot be the
        shard's."""
        _expect_small_blocks(manifest, self._object(found, shard))
        held = bytearray()
        number, size = 0, manifest.block_bytes
        for data in self._bytes(found, shard):
            held += data
            whole = len(held) // size * size
            for begin in range(0, whole, size):
                yield number, bytes(memoryview(held)[begin : begin + size])
                number += 1
            del held[:whole]
        if held:
            yield number, bytes(held)

    def _bytes(self, found: RemoteStep, shard: Shard) -> Iterator[bytes]:
        if found.objects.get(shard.file) == shard.bytes:
            return self._plain(found.step, shard)
        if shard.file + PACKED in found.objects:
            return self._packed(found, shard)
        where, size = self._level.where(found.step, shard.file), found.objects.get(shard.file)
        if size is None:
            raise DamagedError(f"{where} is missing: take another step")
        raise DamagedError(f"{where} has {size} bytes, not {shard.bytes}: take another step")

    def _object(self, found: RemoteStep, shard: Shard) -> str:
        packed = "" if found.objects.get(shard.file) == shard.bytes else PACKED
        return self._level.where(found.step, shard.file + packed)

    def _plain(self, step: int, shard: Shard) -> Iterator[bytes]:
        edges = [*range(0, shard.bytes, RANGE_BYTES), shard.bytes]
        name = f"{step_folder(step)}/{shard.file}"
        return self._ranges(name, list(zip(edges, edges[1:], strict=False)))

    def _packed(self, found: RemoteStep, shard: Shard) -> Iterator[bytes]:
        file = shard.file + PACKED
        name, size = f"{step_folder(found.step)}/{file}", found.objects[file]
        what = self._level.where(found.step, file)
        if size < TRAILER.size:
            raise DamagedError(f"{what}: {size} bytes are no compressed shard; take another step")
        trailer = self._range(name, size - TRAILER.size, size)
        more = remote_format.index_bytes(trailer, shard.bytes, size, what)
        index = remote_format.decode_end(
            self._range(name, size - TRAILER.size - more, size), shard.bytes, size, what
        )
        edges = [0]
        for frame in index.frames:
            edges.append(edges[-1] + frame.stored)
        stored = self._ranges(name, list(zip(edges, edges[1:], strict=False)))
        for number, (frame, data) in enumerate(zip(index.frames, stored, strict=True)):
            yield remote_format.decode_frame(data, frame, index.raw_bytes(number), what)

    def _ranges(self, name: str, ranges: list[tuple[int, int]]) -> Iterator[bytes]:
        """In their order, some of them ahead."""
        under_way: deque[Future[bytes]] = deque()
        with ThreadPoolExecutor(max(self._store.parallel, 1), "pccl-download") as readers:
            try:
                for begin, end in ranges:
                    under_way.append(readers.submit(self._range, name, begin, end))
                    if len(under_way) > self._store.parallel:
                        yield under_way.popleft().result()
                while under_way:
                    yield under_way.popleft().result()
            finally:
                for future in under_way:
                    future.cancel()

    def _range(self, name: str, begin: int, end: int) -> bytes:
        def once() -> bytes:
            try:
                data = self._store.read(name, begin, end)
            except FileNotFoundError:
                raise DamagedError(f"{self._store.url}/{name} is missing: take another step") from None
            return _whole(data, begin, end)

        return self._call(f"read {name}", once)

    def _call(self, what: str, action: Callable[[], T]) -> T:
        return self._patience.call(f"{what} at {self._store.url}", action)


def _expect_small_blocks(made: Manifest, what: str) -> None:
    """Each is held in memory as a whole."""
    if made.block_bytes > BLOCK_BYTES_MAX:
        most = f"at most {BLOCK_BYTES_MAX} are fetched"
        raise DamagedError(f"{what}: blocks of {made.block_bytes} bytes; {most}")


def _whole(data: bytes, begin: int, end: int) -> bytes:
    if len(data) != end - begin:
        raise OSError(f"{len(data)} bytes came where {end - begin} were asked for")
    return data


def _here(path: Path, made: Manifest) -> bool:
    """Whether the step's own manifest is in the local folder already. Raises CheckpointError for another
    one."""
    with explained(f"read {path}"):
        try:
            with opened(path, FILE_NAME) as (file, size):
                data = read_at(file, 0, size)
        except (FileNotFoundError, NotADirectoryError):
            return False
        if data == manifests.encode(made):
            return True
        try:
            manifests.decode(data)
        except DamagedError:
            (path / FILE_NAME).unlink()
            sync_folder(path)
            return False
    raise CheckpointError(
        f"{path} is another step of this number than that of the remote, and is not replaced"
    )


def _sound(path: Path, manifest: Manifest, shard: Shard) -> bool:
    """Whether the local file is right already."""
    try:
        with opened(path, shard.file) as (file, size):
            if size != shard.bytes:
                return False
            for number, begin in enumerate(range(0, size, manifest.block_bytes)):
                if zlib.crc32(read_at(file, begin, min(manifest.block_bytes, size - begin))) != shard.crc(
                    number
                ):
                    return False
    except (OSError, DamagedError):
        return False
    return True
