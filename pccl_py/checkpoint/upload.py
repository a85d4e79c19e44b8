"""One shard file of a step becomes an object: in parts, resumed where an earlier try ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from ..errors import CheckpointError
from .bandwidth import Bandwidth
from .manifest import Manifest
from .patience import Patience
from .remote_format import Frame
from .remote_store import PACKED, Gone, RemoteStore, Sending, step_folder
from .upload_journal import Journal, Progress
from .upload_parts import Part, packed_parts, part_bytes, plain_parts

Compression = Literal["zstd"]
T = TypeVar("T")


@dataclass(slots=True)
class Counts:
    """Of one upload: bytes sent, and bytes of objects that an earlier process had sent."""

    sent: int = 0
    kept: int = 0


class Uploader:
    """Sends shards of one step after another; memory is `parallel` parts and one more. One thread."""

    def __init__(
        self,
        store: RemoteStore,
        journal: Journal,
        bandwidth: Bandwidth,
        patience: Patience,
        compression: Compression | None,
        tick: Callable[[], None],
    ) -> None:
        self._store, self._journal, self._bandwidth = store, journal, bandwidth
        self._patience, self._compression, self._tick = patience, compression, tick

    def send(self, folder: Path, manifest: Manifest, seal: str, shards: list[int]) -> Counts:
        """These shards of the step in this folder. Raises DamagedError where one is not what was saved."""
        progress = self._journal.read(self._store.url, manifest.step, seal)
        counts = Counts()
        place = step_folder(manifest.step)
        there = (
            self._patience.call(f"list {place}", lambda: self._store.listing(place)) if progress.done else {}
        )
        for shard in shards:
            name = f"{place}/{manifest.shards[shard].file}{PACKED if self._compression else ''}"
            if name in progress.done and there.get(name) == progress.done[name]:
                counts.kept += progress.done[name]
                continue
            self._object(name, folder, manifest, shard, progress, counts)
        return counts

    def _object(
        self, name: str, folder: Path, manifest: Manifest, shard: int, progress: Progress, counts: Counts
    ) -> None:
        """As often as it has to begin anew: where its parts are lost, or the store cannot resume."""
        if progress.object == name:
            counts.kept += progress.stored

        def once() -> int:
            return self._once(name, folder, manifest, shard, progress, counts)

        while True:
            try:
                size = once() if self._store.resumes else self._patience.call(f"send {name}", once)
            except Gone:
                progress.begin("", "")
                continue
            progress.end(size)
            self._journal.write(progress)
            return

    def _once(
        self, name: str, folder: Path, manifest: Manifest, shard: int, progress: Progress, counts: Counts
    ) -> int:
        """The size of the object, which is there."""
        total = manifest.shards[shard].bytes
        sending = self._begun(name, progress, total)
        if sending is None:
            return progress.stored
        try:
            self._parts(sending, self._source(folder, manifest, shard, progress), progress, counts)
            self._finish(sending, name, progress)
        except BaseException:
            if not sending.mark:
                sending.abandon()
            raise
        self._expect(name, progress)
        return progress.stored

    def _finish(self, sending: Sending, name: str, progress: Progress) -> None:
        """An answer may be lost after the store has finished; then asking again says Gone."""
        try:
            self._call(f"finish {name}", lambda: sending.finish(progress.tags))
        except Gone:
            if not self._call(f"look at {name}", lambda: self._store.finished(name, progress.tags)):
                raise

    def _begun(self, name: str, progress: Progress, total: int) -> Sending | None:
        """None: an earlier process ended after its last part, and the object is there."""
        mark = progress.mark if progress.object == name else ""
        if mark:
            with suppress(Gone):
                return self._call(f"resume {name}", lambda: self._store.send(name, mark))
            if progress.raw == total and self._store.finished(name, progress.tags):
                return None
        sending = self._call(f"begin {name}", lambda: self._store.send(name))
        progress.begin(name, sending.mark)
        if sending.mark:
            self._journal.write(progress)
        return sending

    def _source(self, folder: Path, manifest: Manifest, shard: int, progress: Progress) -> Iterator[Part]:
        size = max(
            part_bytes(manifest.shards[shard].bytes, self._store.parts_max), self._store.part_bytes_min
        )
        if self._compression is None:
            return plain_parts(folder, manifest, shard, progress.raw, size)
        frames = [Frame(*frame) for frame in progress.frames]
        return packed_parts(folder, manifest, shard, progress.raw, size, frames)

    def _parts(self, sending: Sending, source: Iterator[Part], progress: Progress, counts: Counts) -> None:
        under_way: deque[tuple[Part, Future[str]]] = deque()
        with ThreadPoolExecutor(self._store.parallel, "pccl-upload") as senders:
            try:
                for number, part in enumerate(source, len(progress.tags) + 1):
                    under_way.append((part, senders.submit(self._part, sending, number, part.data)))
                    if len(under_way) >= self._store.parallel:
                        self._sent(sending, *under_way.popleft(), progress, counts)
                while under_way:
                    self._sent(sending, *under_way.popleft(), progress, counts)
            except BaseException:
                for _, future in under_way:
                    future.cancel()
                raise

    def _part(self, sending: Sending, number: int, data: bytes) -> str:
        self._bandwidth.take(len(data))
        return self._call(f"send part {number}", lambda: sending.part(number, data))

    def _sent(
        self, sending: Sending, part: Part, future: Future[str], progress: Progress, counts: Counts
    ) -> None:
        tag = future.result()
        counts.sent += len(part.data)
        progress.tags.append(tag)
        progress.raw, progress.stored = part.raw, progress.stored + len(part.data)
        progress.frames += part.frames
        if sending.mark:
            self._journal.write(progress)
        self._tick()

    def _call(self, what: str, action: Callable[[], T]) -> T:
        """What cannot be resumed is not tried again by itself: the object begins anew."""
        if not self._store.resumes:
            return action()
        return self._patience.call(f"{what} at {self._store.url}", action)

    def _expect(self, name: str, progress: Progress) -> None:
        there = self._call(f"look at {name}", lambda: self._store.listing(name.rpartition("/")[0]))
        if there.get(name) != progress.stored:
            text = f"{self._store.url}/{name} has {there.get(name)} bytes after {progress.stored} were sent"
            progress.begin("", "")
            raise CheckpointError(f"{text}: somebody else writes there")
