"""The level on disk: a folder of steps that ranks write together, committed in two phases.

First every rank has its shard durable and tells the others what is in it; then the manifest is written, by
one rank of each folder, and older steps are retired; then all know that the step exists. A rank that fails
says so in the first phase, and the step exists for nobody.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..errors import BusyError, CheckpointError, NoCheckpointError, UsageError
from . import folder, limits
from .coordination import Coordination
from .files import PART, explained, sync_folder
from .holds import Holds
from .manifest import FILE_NAME, Manifest
from .manifest_body import shard_file
from .rank_record import RankRecord, decode_record, encode_record, merge
from .retention import keepers
from .verify import Report, verify_step


class LocalLevel:
    """`root` is one folder for all ranks, or one on each host. The thread that trains begins steps, another
    one commits them; what removes folders is done under a lock, and never to those that are being written."""

    block_bytes = limits.BLOCK_BYTES

    def __init__(
        self,
        root: Path,
        coordination: Coordination,
        keep: int,
        keep_every: int | None,
        timeout_s: float,
    ) -> None:
        self.root = root
        self._coordination, self.world = coordination, coordination.world
        self._keep, self._keep_every, self._timeout_s = keep, keep_every, timeout_s
        self._spares: list[Path] = []  # retired shard files of this rank, to be written over
        self.holds = Holds()
        self._held = ExitStack()
        self._changing = threading.RLock()
        self._present: dict[int, Path] = {}  # steps in this folder that are whole, as far as its ranks go
        self._under_way: dict[Path, Path] = {}  # folders being written: from where each takes a spare file
        with explained(f"use {root} for checkpoints"):
            root.mkdir(parents=True, exist_ok=True)
        self._folder_ranks = self._ranks_of_folder()
        self._open()

    def _ranks_of_folder(self) -> list[int]:
        """The ranks that see the same folder: those that see the mark of rank 0, or are on one host."""
        if self.world.size == 1:
            return [0]
        mark = self.root / f".mark-{secrets.token_hex(8)}"
        if self.world.rank == 0:
            mark.touch()
        marks = self._coordination.exchange("open/mark", mark.name.encode(), self._timeout_s)
        sees = (self.root / marks[0].decode()).exists()
        place = b"shared" if sees else socket.gethostname().encode()
        places = self._coordination.exchange("open/place", place, self._timeout_s)
        mark.unlink(missing_ok=True)
        return [rank for rank, other in enumerate(places) if other == place]

    @property
    def leads(self) -> bool:
        """Whether this rank writes the manifest into this folder, and retires steps from it."""
        return self.world.rank == self._folder_ranks[0]

    def _open(self) -> None:
        fault = b""
        try:
            if self.leads:
                self._held.enter_context(folder.hold(self.root))
                folder.sweep(self.root)
                for step in folder.scan(self.root).steps:
                    if step.manifest is not None and not step.faults:
                        self._present[step.step] = step.path
        except CheckpointError as error:
            if self.world.size == 1:
                raise
            fault = str(error).encode()
        faults = self._coordination.exchange("open/held", fault, self._timeout_s)
        if found := [text.decode() for text in faults if text]:
            self.close()
            raise CheckpointError(found[0])

    def steps(self) -> list[int]:
        return [step.step for step in folder.scan(self.root).steps if step.complete]

    def whole_steps(self) -> list[int]:
        """Those that are complete as far as this folder's ranks go."""
        found = folder.scan(self.root).steps
        return [step.step for step in found if step.manifest is not None and not step.faults]

    @contextmanager
    def coming(self, step: int) -> Iterator[None]:
        """The step comes back from elsewhere: nothing else happens to its folder meanwhile. No save is under way."""
        path = folder.step_path(self.root, step)
        with self._changing:
            self._spares = [spare for spare in self._spares if spare.parent != path]
            self._under_way[path] = path
        try:
            yield
        finally:
            with self._changing:
                self._under_way.pop(path, None)
                if self.leads and (path / FILE_NAME).exists():
                    self._present[step] = path

    def step(self, step: int) -> folder.StepFolder:
        return folder.find(self.root, step)

    def check_new(self, step: int) -> None:
        if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step <= limits.STEP_MAX:
            raise UsageError(f"step {step!r}: a whole number from 0 to {limits.STEP_MAX}")
        path = folder.step_path(self.root, step)
        if (path / FILE_NAME).exists():
            raise BusyError(f"{path} exists already: save under another number, or remove it first")

    def shard_name(self) -> str:
        return shard_file(self.world.rank, self.world.size)

    def begin(self, step: int) -> tuple[str, str]:
        """Where this rank's shard appears once it is durable, its folder is there; and a retired file to be
        written over, or ""."""
        path = folder.step_path(self.root, step)
        with self._changing, explained(f"make {path}"):
            path.mkdir(exist_ok=True)
            spare = self._spares.pop() if self._spares else None
            self._under_way[path] = path if spare is None else spare.parent
        return str(path / self.shard_name()), "" if spare is None else str(spare)

    def _in_use(self) -> set[Path]:
        """Folders that files are written to or taken from."""
        kept = {spare.parent for spare in self._spares}
        return kept | set(self._under_way) | set(self._under_way.values())

    def commit(self, number: int, step: int, record: RankRecord | CheckpointError) -> Manifest:
        """Both phases. `record`: of this rank, whose shard is durable; or why it is not."""
        path = folder.step_path(self.root, step)
        words = self._own_words(path, record)
        given = self._coordination.exchange(f"save/{number}/shard", words, self._timeout_s)
        manifest = self._merged(step, given)
        outcome: dict[str, object] = {}
        if self.leads:
            with self._changing:
                outcome = self._publish(path, manifest)
        outcomes = self._coordination.exchange(
            f"save/{number}/done", json.dumps(outcome).encode(), self._timeout_s
        )
        for rank, words in enumerate(outcomes):
            if fault := json.loads(words).get("fault"):
                raise CheckpointError(f"step {step}: rank {rank} could not commit it: {fault}")
        with self._changing:
            self._under_way.pop(path, None)
            self._retired(json.loads(outcomes[self._folder_ranks[0]]).get("retired", []))
        return manifest

    def _own_words(self, path: Path, record: RankRecord | CheckpointError) -> bytes:
        """The first phase of this rank; an error becomes what the others are told."""
        if isinstance(record, RankRecord):
            try:
                sync_folder(path)
                return b"R%d " % time.time_ns() + encode_record(record)
            except (CheckpointError, OSError) as error:
                record = CheckpointError(str(error))
        if self.world.size == 1:
            raise record
        return b"E" + str(record).encode()

    def _merged(self, step: int, given: list[bytes]) -> Manifest:
        for rank, words in enumerate(given):
            if words[:1] == b"E":
                raise CheckpointError(f"step {step}: rank {rank} has no shard of it: {words[1:].decode()}")
        records = []
        for rank, words in enumerate(given):
            text = words[1:].partition(b" ")[2]
            records.append(decode_record(text, self.block_bytes, what=f"the record of rank {rank}"))
        begun = int(given[0][1:].partition(b" ")[0]) / 1e9
        return merge(records, step=step, time=begun, world=self.world.size, block_bytes=self.block_bytes)

    def _publish(self, path: Path, manifest: Manifest) -> dict[str, object]:
        own = {shard_file(rank, self.world.size) for rank in self._folder_ranks}
        try:
            folder.commit(path, manifest, own)
            self._present[manifest.step] = path
            return {"retired": [str(step) for step in self._retire()]}
        except CheckpointError as error:
            if self.world.size == 1:
                raise
            return {"fault": str(error)}

    def _retire(self) -> list[Path]:
        """Folders of steps that need not stay: they have lost their manifest, their files are free."""
        stay = keepers(self._present, self._keep, self._keep_every) | self.holds.steps()
        gone = [path for step, path in sorted(self._present.items()) if step not in stay]
        for path in gone:
            folder.retire(path)
        self._present = {step: path for step, path in self._present.items() if step in stay}
        return gone

    def _retired(self, paths: list[str]) -> None:
        """One file of this rank stays to be written over, everything else of these steps goes."""
        name = self.shard_name()
        for path in map(Path, paths):
            if not self._spares and (path / name).exists():
                self._spares.append(path / name)
        for path in map(Path, paths):
            if self._spares and path == self._spares[0].parent:
                continue
            (path / name).unlink(missing_ok=True)
            with suppress(OSError):  # not empty yet: another rank's file
                path.rmdir()
        self._remove_emptied()

    def _remove_emptied(self) -> None:
        if not self.leads:
            return
        for path in folder.scan(self.root).leftovers:
            if folder.step_of(path) is not None and path not in self._in_use():
                with suppress(OSError):  # not empty: a file to be written over
                    path.rmdir()

    def abandon(self, step: int) -> None:
        """What this rank has of a step that will not exist."""
        path = folder.step_path(self.root, step)
        with self._changing, suppress(OSError):
            self._under_way.pop(path, None)
            for name in (self.shard_name(), f"{self.shard_name()}{PART}"):
                if not (path / FILE_NAME).exists():
                    (path / name).unlink(missing_ok=True)
            path.rmdir()

    def verify(self, step: int | str) -> Report:
        found = folder.find(self.root, None if step == "latest" else _number(step))
        return verify_step(found.path)

    def gc(self) -> list[int]:
        if not self.leads:
            return []
        with self._changing:
            gone = self._retire()
            for path in gone:
                folder.remove(path)
            folder.sweep(self.root, self._in_use())
        return [step for path in gone if (step := folder.step_of(path)) is not None]

    def close(self) -> None:
        self._held.close()


def _number(step: int | str) -> int:
    if isinstance(step, int):
        return step
    raise NoCheckpointError(f"step {step!r}: a number, or 'latest'")
