"""A folder of checkpoints: one folder per step, which exists by its manifest and is retired by losing it.

    root/step-000000001200/shard-00000-of-00002.safetensors, ..., manifest.json

One process at a time changes a root (`hold`); anybody may read it meanwhile, and finds at every instant what
was complete before. The order of writing here makes that true: each action is durable before the next.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import BusyError, CheckpointError, DamagedError, NoCheckpointError
from ..values.limits import MANIFEST_BYTES_MAX, STEP_MAX
from . import manifest as manifests
from .files import PART, explained, opened, read_at, sync_folder, write_part
from .manifest import Manifest
from .manifest_body import is_shard_file

LOCK_FILE = ".saver.lock"
_STEP = re.compile("step-([0-9]{12})")
_locks: set[int] = set()  # descriptors of roots that this process holds


def _let_go_of_locks() -> None:
    """In a forked child: a worker that outlives its parent must not hold the root for it."""
    while _locks:
        with suppress(OSError):
            os.close(_locks.pop())


os.register_at_fork(after_in_child=_let_go_of_locks)


@dataclass(frozen=True, slots=True)
class StepFolder:
    """A step that has a manifest, sound or not."""

    path: Path
    step: int
    manifest: Manifest | None  # None: it is damaged
    missing: tuple[str, ...] = ()  # shard files that are not here (they may be at other hosts)
    faults: tuple[str, ...] = ()  # what is wrong with those that are, or with the manifest

    @property
    def complete(self) -> bool:
        """Everything is here, in its right size. Whether its bytes are right, reading and `verify` say."""
        return self.manifest is not None and not self.missing and not self.faults


@dataclass(frozen=True, slots=True)
class Scan:
    """What a root holds: its steps in their order, and what crashes and retirements left in it."""

    steps: tuple[StepFolder, ...]
    leftovers: tuple[Path, ...]

    @property
    def latest(self) -> StepFolder | None:
        return next((step for step in reversed(self.steps) if step.complete), None)


def step_path(root: Path, step: int) -> Path:
    """The folder of a step. Raises CheckpointError for a number that no folder can have."""
    if not 0 <= step <= STEP_MAX:
        raise CheckpointError(f"step {step} is not from 0 to {STEP_MAX}")
    return root / f"step-{step:012d}"


def step_of(path: Path) -> int | None:
    """The step of such a folder, by its name; None: it is none."""
    match = _STEP.fullmatch(path.name)
    return int(match[1]) if match else None


@contextmanager
def hold(root: Path) -> Iterator[None]:
    """Nobody else may change this root meanwhile. Raises BusyError, with the holder's process, at once."""
    with explained(f"use {root} for checkpoints"):
        root.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(root / LOCK_FILE, flags, 0o644)
    process = os.getpid()
    _locks.add(lock)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 100, 0).decode("ascii", "replace").strip()
            text = f"{root} is held by another saver (process {holder or '?'}): give each run its own folder"
            raise BusyError(text) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        if os.getpid() == process:  # else it is closed already
            _locks.discard(lock)
            fcntl.flock(lock, fcntl.LOCK_UN)  # a child that was forked just now has it, too
            os.close(lock)


def scan(root: Path) -> Scan:
    """What is there now. A root that does not exist holds nothing."""
    steps: list[StepFolder] = []
    leftovers: list[Path] = []
    for path in _folders(root):
        step = read_step(path)
        if step is not None:
            steps.append(step)
            with suppress(PermissionError):  # its faults say so already
                leftovers += [path / name for name in _names(path) if name.endswith(PART)]
        else:
            leftovers.append(path)
    return Scan(tuple(steps), tuple(leftovers))


def numbers(root: Path) -> set[int]:
    """Of the steps that have a manifest, sound or not."""
    there = [path for path in _folders(root) if os.access(path / manifests.FILE_NAME, os.F_OK)]
    return {step for path in there if (step := step_of(path)) is not None}


def find(root: Path, step: int | None = None) -> StepFolder:
    """The step, or the newest complete one. Raises NoCheckpointError that says what is there."""
    if step is not None and 0 <= step <= STEP_MAX:  # alone: manifests of large states take a while to read
        alone = read_step(step_path(root, step))
        if alone is not None and alone.manifest is not None and alone.step == step:
            return alone
    found = scan(root)
    wanted = found.latest if step is None else next((s for s in found.steps if s.step == step), None)
    if wanted is None:
        there = ", ".join(f"{s.step}{'' if s.complete else ' (not complete)'}" for s in found.steps) or "none"
        what = "complete step" if step is None else f"step {step}"
        raise NoCheckpointError(f"no {what} in {root}; steps there: {there}")
    return wanted


def read_step(path: Path) -> StepFolder | None:
    """The step in this folder; None without a manifest, for then it does not exist."""
    step = step_of(path)
    try:
        with opened(path, manifests.FILE_NAME) as (file, size):
            data = read_at(file, 0, min(size, MANIFEST_BYTES_MAX + 1))
        made = manifests.decode(data, what=str(path / manifests.FILE_NAME))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (DamagedError, OSError) as error:
        return StepFolder(path, -1 if step is None else step, None, faults=(str(error),))
    faults: list[str] = []
    missing: list[str] = []
    if step not in (None, made.step):
        faults.append(f"{path} holds the manifest of step {made.step}")
    for shard in made.shards:
        try:
            with opened(path, shard.file) as (_, size):
                if size != shard.bytes:
                    faults.append(f"{path / shard.file} has {size} bytes, not {shard.bytes}")
        except FileNotFoundError:
            missing.append(shard.file)
        except (DamagedError, OSError) as error:
            faults.append(str(error))
    return StepFolder(path, made.step, made, tuple(missing), tuple(faults))


def begin(root: Path, step: int) -> Path:
    """An empty folder to write a step into; what an earlier try left there is gone.

    Raises BusyError where the step exists: retire it first, or save under another number.
    """
    path = step_path(root, step)
    with explained(f"make {path}"):
        path.mkdir(parents=True, exist_ok=True)
        if manifests.FILE_NAME in _names(path):
            raise BusyError(f"{path} exists already; retire it first, or save under another number")
        _remove_files(path)
        sync_folder(root)
    return path


def make(path: Path) -> None:
    """The folder of a step, where there is none yet. Raises CheckpointError."""
    with explained(f"make {path}"), suppress(FileExistsError):
        os.mkdir(path)


def publish(path: Path, name: str) -> None:
    """A shard file, durable under its temporary name, gets its own."""
    with explained(f"rename {path / name}{PART}"):
        os.rename(path / f"{name}{PART}", path / name)


def draft(path: Path, manifest: Manifest) -> None:
    """What can be done for a commit before the shards are there: the manifest is durable under its temporary
    name, and so is the folder's own name. Raises CheckpointError."""
    data = manifests.encode(manifest)
    with explained(f"commit {path}"):
        write_part(path, manifests.FILE_NAME, data)
        sync_folder(path.parent)


def commit(
    path: Path, manifest: Manifest, own: Collection[str] | None = None, *, drafted: bool = False
) -> None:
    """Makes the step exist, durably. Its shard files are published, their bytes on disk.

    `own` are those that have to be here (None: all). `drafted`: the same manifest was given to `draft`.
    Raises CheckpointError; then the step does not exist.
    """
    part = path / f"{manifests.FILE_NAME}{PART}"
    if not drafted:
        draft(path, manifest)
    try:
        for shard in manifest.shards:
            if own is None or shard.file in own:
                _expect(path, shard.file, shard.bytes)
        with explained(f"commit {path}"):
            sync_folder(path)  # the shards' names
    except CheckpointError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    try:
        with explained(f"commit {path}"):
            os.rename(part, path / manifests.FILE_NAME)
            sync_folder(path)
    except CheckpointError:
        for name in (path / manifests.FILE_NAME, part):
            with suppress(OSError):
                name.unlink(missing_ok=True)
        raise


def retire(path: Path) -> list[Path]:
    """The step stops to exist, durably; then its shard files, which this returns, may be written over. Files
    with a second name (somebody's hard-linked copy) are not among them."""
    with explained(f"retire {path}"):
        (path / manifests.FILE_NAME).unlink(missing_ok=True)
        sync_folder(path)
        return [path / name for name in sorted(_names(path)) if is_shard_file(name) and _own(path / name)]


def remove(path: Path) -> bool:
    """The folder with everything of ours in it; the manifest first. False: files of others keep it there."""
    with explained(f"remove {path}"):
        retire(path)
        _remove_files(path)
        with suppress(OSError):  # not empty
            path.rmdir()
            sync_folder(path.parent)
            return True
    return False


def sweep(root: Path, keep: Collection[Path] = ()) -> list[Path]:
    """Removes what crashes left, and returns it; `keep` are folders that are being written now. Files of
    others are not touched, nor those of a step that has a manifest, sound or damaged."""
    gone: list[Path] = []
    for path in scan(root).leftovers:
        if path in keep or path.parent in keep:
            continue
        if step_of(path) is not None:
            gone += [path] if remove(path) else []
        elif _is_ours(path.name):
            with explained(f"remove {path}"):
                path.unlink(missing_ok=True)
            gone.append(path)
    return gone


def _folders(root: Path) -> list[Path]:
    try:
        with os.scandir(root) as entries:
            found = [
                Path(e.path) for e in entries if _STEP.fullmatch(e.name) and e.is_dir(follow_symlinks=False)
            ]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"cannot list {root}: {error.strerror}") from error
    return sorted(found)


def _names(path: Path) -> list[str]:
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []


def _is_ours(name: str) -> bool:
    return is_shard_file(name.removesuffix(PART)) or name in (
        manifests.FILE_NAME,
        f"{manifests.FILE_NAME}{PART}",
    )


def _remove_files(path: Path) -> None:
    for name in _names(path):
        if _is_ours(name) and not stat.S_ISDIR(os.lstat(path / name).st_mode):
            (path / name).unlink()


def _own(path: Path) -> bool:
    status = os.lstat(path)
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _expect(path: Path, name: str, size: int) -> None:
    with explained(f"commit {path} without {name}"), opened(path, name) as (_, there):
        if there != size:
            raise DamagedError(f"{path / name} has {there} bytes, not {size}; the step is not committed")
