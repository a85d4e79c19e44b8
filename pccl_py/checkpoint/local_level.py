"""The level on disk: a folder of steps that ranks write together, committed in two phases.

First every rank has its shard durable and tells the leader of each folder what is in it. Then leaders write
the manifest; the first copy that is durable makes the step exist. Then all hear that it does, or why not, and
older steps are retired. A rank that fails says so in the first phase, and the step exists for nobody; a rank
that hears nothing in the second leaves its shard where it is, for the step may exist.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..errors import BusyError, CheckpointError, NoCheckpointError, UsageError
from ..values import limits
from . import folder, host_folders
from .commit_words import CommitWords, Draft
from .coordination import Coordination
from .files import PART
from .holds import Holds
from .manifest import FILE_NAME, Manifest
from .manifest_body import shard_file
from .rank_record import RankRecord
from .retention import keepers
from .retired_files import RetiredFiles
from .verify import Report, verify_step

RETIRED_S = 5.0


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
        self.holds = Holds()
        self._void: set[int] = set()  # steps that are there and cannot be loaded, the same on all ranks
        self._agains = self._gcs = 0
        # All steps that exist, as far as this rank has heard, and some that did.
        self._known: set[int] = set()
        self._held = ExitStack()
        self._changing = threading.RLock()
        self._present: dict[int, Path] = {}  # of a leader: steps that are whole, as far as its folder goes
        folders = host_folders.folders_of(root, coordination, timeout_s)
        self._leaders = host_folders.leaders_of(folders)
        self._folder_ranks = [rank for rank, word in enumerate(folders) if word == folders[self.world.rank]]
        if not self.shared:
            self.world = self.world._replace(beside=tuple(self._folder_ranks))
        self._own = {shard_file(rank, self.world.size) for rank in self._folder_ranks}
        self._words = CommitWords(coordination, self._leaders, self._folder_ranks, timeout_s)
        self._retired = RetiredFiles(self.shard_name(), self._own, self.leads)
        self._open()

    @property
    def leads(self) -> bool:
        """Whether this rank writes the manifest into this folder, and retires steps from it."""
        return self.world.rank == self._folder_ranks[0]

    @property
    def shared(self) -> bool:
        """All ranks see one folder."""
        return len(self._leaders) == 1

    def _open(self) -> None:
        fault: CheckpointError | None = None
        try:
            if self.leads:
                self._held.enter_context(folder.hold(self.root))
        except CheckpointError as error:
            fault = error
        try:
            self._raise_for_all("open/held", fault)
            if not self.shared:
                self._void = host_folders.agree(self.root, self._coordination, self._leaders, self._timeout_s)
            if self.leads:
                folder.sweep(self.root)
                found = folder.scan(self.root).steps
                self._present = {step.step: step.path for step in found if self._whole(step)}
            self._raise_for_all("open/swept", None)
            self._known = folder.numbers(self.root)
        except BaseException:
            self.close()
            raise

    def _raise_for_all(self, key: str, fault: CheckpointError | None) -> None:
        words = b"" if fault is None else str(fault).encode()
        faults = self._coordination.exchange(key, words, self._timeout_s)
        if fault is not None:
            raise fault
        for rank, text in enumerate(faults):
            if text:
                raise CheckpointError(f"rank {rank}: {text.decode()}")

    def steps(self) -> list[int]:
        """Complete ones; where hosts have folders of their own, as far as this folder can say."""
        return [step.step for step in folder.scan(self.root).steps if self._whole(step)]

    def _whole(self, step: folder.StepFolder) -> bool:
        """Everything is here that has to be in this folder."""
        if self.shared or step.manifest is None or step.faults or step.step in self._void:
            return step.complete
        return step.manifest.world != self.world.size or not self._own & set(step.missing)

    def whole_steps(self) -> list[int]:
        """Those that are complete as far as this folder's ranks go."""
        found = folder.scan(self.root).steps
        return [step.step for step in found if step.manifest is not None and not step.faults]

    @contextmanager
    def coming(self, step: int) -> Iterator[None]:
        """The step comes back from elsewhere: nothing else happens to its folder meanwhile. All ranks call
        it, and none of them has a save under way."""
        path = folder.step_path(self.root, step)
        with self._changing:
            self._retired.keep_out(path)
            self._void.discard(step)
        try:
            yield
        finally:
            with self._changing:
                self._retired.written(path)
                self._known.add(step)
                if self.leads and (path / FILE_NAME).exists():
                    self._present[step] = path

    def step(self, step: int) -> folder.StepFolder:
        return folder.find(self.root, step)

    def held(self) -> list[str]:
        """Steps with a sound manifest, each with its digest."""
        found = folder.scan(self.root).steps
        return [
            f"{step.step}:{host_folders.digest(step.manifest)}" for step in found if step.manifest is not None
        ]

    def give_up(self, step: int) -> None:
        """All ranks agree that this step cannot be loaded: another one may take its number."""
        self._void.add(step)
        self._present.pop(step, None)

    def check_new(self, step: int) -> None:
        if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step <= limits.STEP_MAX:
            raise UsageError(f"step {step!r}: a whole number from 0 to {limits.STEP_MAX}")
        if step not in self._known or step in self._void:
            return  # of a step that came past this saver the disk's threads tell
        path = folder.step_path(self.root, step)
        if os.access(f"{path}/{FILE_NAME}", os.F_OK):
            raise BusyError(f"{path} exists already: save under another number, or remove it first")
        self._known.discard(step)

    def shard_name(self) -> str:
        return shard_file(self.world.rank, self.world.size)

    def begin(self, step: int) -> tuple[str, str]:
        """Where this rank's shard appears once it is durable, and a retired file to be written over, or "".
        The folder is made by who writes there: a disk takes its time for it, and training waits for this."""
        path = folder.step_path(self.root, step)
        if step in self._void:
            self._clear(step, path)
        with self._changing:
            spare = self._retired.take(path)
        return f"{path}/{self.shard_name()}", spare

    def make(self, step: int) -> None:
        """Its folder, for who writes there by other means than a ShardSave. Raises BusyError where the step
        exists."""
        path = folder.step_path(self.root, step)
        folder.make(path)
        if os.access(path / FILE_NAME, os.F_OK):
            raise BusyError(f"{path} exists already: save under another number, or remove it first")

    def _clear(self, step: int, path: Path) -> None:
        """A step that cannot be loaded makes room for another one of its number: on all ranks at once."""
        if self.leads and path.exists():
            folder.retire(path)
        self._void.discard(step)
        self._agains += 1
        self._coordination.exchange(f"again/{self._agains}", b"", self._timeout_s)

    def draft(self, step: int, record: RankRecord) -> Draft:
        """What `commit` will tell of this rank's shard, before that is durable. Where there is no other rank
        the manifest is written already, under its temporary name."""
        draft = self._words.draft(step, record)
        if draft.manifest is not None:
            path = folder.step_path(self.root, step)
            folder.make(path)  # the disk's threads may not have come to it
            folder.draft(path, draft.manifest)
        return draft

    def commit(self, number: int, step: int, draft: Draft | CheckpointError) -> None:
        """Both phases. `draft`: of this rank, whose shard is durable now; or why it is not. Raises where the
        step does not exist, or where this rank cannot know. `tidy` follows where it does."""
        path = folder.step_path(self.root, step)
        words = self._words.own(path, draft)
        made = draft.manifest if isinstance(draft, Draft) else None
        outcome = self._published(number, step, path, words, made)
        outcomes = self._words.outcomes(number, step, outcome, words)
        faults = [str(one["fault"]) for one in outcomes if "fault" in one]
        if not faults:
            self._known.add(step)
        else:
            if self.leads and "fault" not in outcome:
                with self._changing:
                    folder.retire(path)
                    self._present.pop(step, None)
            raise CheckpointError(f"step {step}: {faults[0]}")

    def tidy(self, number: int, step: int) -> None:
        """After `commit`: what need not stay goes, or is written over by the next save."""
        path = folder.step_path(self.root, step)
        retired = self._retire_old(number)
        self._known.difference_update([folder.step_of(Path(path)) for path in retired])
        with self._changing:
            self._retired.written(path)
            self._retired.add(map(Path, retired))

    def _published(
        self, number: int, step: int, path: Path, words: bytes, drafted: Manifest | None
    ) -> dict[str, str]:
        """What a leader has to tell of its folder's manifest."""
        try:
            given = self._words.of_all(number, words)
            if self.leads:
                made = self._words.merged(step, given) if drafted is None else drafted
                folder.commit(path, made, self._own, drafted=drafted is not None)
                with self._changing:  # not while the disk is waited for: the training may begin a step
                    self._present[step] = path
        except Exception as error:
            if self.world.size == 1:
                raise
            kind = "" if isinstance(error, CheckpointError) else f"{type(error).__name__}: "
            return {"fault": f"rank {self.world.rank} could not commit it: {kind}{error}"}
        return {}

    def _retire_old(self, number: int) -> list[str]:
        """By the leader of each folder, now that all of them have the new step; its ranks hear what is
        free."""
        words = b"[]"
        if self.leads:
            with suppress(CheckpointError):  # then they stay until the next time
                words = json.dumps([str(path) for path in self._retire()]).encode()
        try:
            said = self._coordination.exchange(
                f"save/{number}/retired", words, min(RETIRED_S, self._timeout_s), writers=self._leaders
            )
        except CheckpointError:
            return []  # the step exists all the same; what is left is swept at the next start
        return list(json.loads(said[self._leaders.index(self._folder_ranks[0])]))

    def _retire(self) -> list[Path]:
        """Folders of steps that need not stay: they have lost their manifest, their files are free."""
        with self._changing:
            stay = keepers(self._present, self._keep, self._keep_every) | self.holds.steps()
            gone = {step: path for step, path in sorted(self._present.items()) if step not in stay}
        for path in gone.values():
            folder.retire(path)
        with self._changing:
            self._present = {step: path for step, path in self._present.items() if step not in gone}
        return list(gone.values())

    def abandon(self, step: int) -> None:
        """What this rank has of a step that will not exist."""
        path = folder.step_path(self.root, step)
        with self._changing, suppress(OSError):
            self._retired.written(path)
            if step in self._words.in_doubt:
                return  # it may exist; the next start knows
            for name in (self.shard_name(), f"{self.shard_name()}{PART}"):
                if not (path / FILE_NAME).exists():
                    (path / name).unlink(missing_ok=True)
            if self.leads:
                (path / f"{FILE_NAME}{PART}").unlink(missing_ok=True)
            path.rmdir()

    def verify(self, step: int | str) -> Report:
        found = folder.find(self.root, None if step == "latest" else _number(step))
        return verify_step(found.path)

    def gc(self) -> list[int]:
        """On all ranks, none of which has a save under way. The steps that went from this rank's folder."""
        self._gcs += 1
        self._coordination.exchange(f"gc/{self._gcs}/begin", b"", self._timeout_s)
        gone: list[int] = []
        if self.leads:
            with self._changing:
                for path in self._retire():
                    folder.remove(path)
                    gone.append(folder.step_of(path) or 0)
                self._retired.forget()
                folder.sweep(self.root, self._retired.in_use())
        self._retired.forget()
        found = self._coordination.exchange(f"gc/{self._gcs}/end", json.dumps(gone).encode(), self._timeout_s)
        return list(json.loads(found[self._folder_ranks[0]]))

    def stop(self) -> None:
        """Ends what waits for other ranks. Any thread."""
        self._coordination.stop()

    def close(self) -> None:
        self._held.close()


def _number(step: int | str) -> int:
    if isinstance(step, int):
        return step
    raise NoCheckpointError(f"step {step!r}: a number, or 'latest'")
