"""The level at a URL: a folder of objects per step, which exists by its manifest, as on disk.

    step-000000001200/shard-00000-of-00002.safetensors[.zst], ..., manifest.json

Objects that are called otherwise are neither read nor removed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import CheckpointError, DamagedError, NoCheckpointError
from ..values.limits import MANIFEST_BYTES_MAX
from . import manifest as manifests
from .manifest import FILE_NAME, Manifest
from .remote_store import PACKED, RemoteStore, object_of, step_folder
from .retention import keepers


@dataclass(slots=True)
class RemoteStep:
    """What is there of a step: sizes of its objects, by their names without the folder."""

    step: int
    objects: dict[str, int] = field(default_factory=dict)

    @property
    def exists(self) -> bool:
        return FILE_NAME in self.objects

    def names(self) -> list[str]:
        """Of all objects, the manifest first: without it the step has stopped to exist."""
        place = step_folder(self.step)
        return [
            f"{place}/{name}" for name in sorted(self.objects, key=lambda name: (name != FILE_NAME, name))
        ]


class RemoteLevel:
    """Reads at any time; writes only while the caller holds the lease. Calls raise as the store does."""

    def __init__(self, store: RemoteStore, keep: int | None = None, keep_every: int | None = None) -> None:
        keepers([], keep, keep_every)
        self.store = store
        self._keep, self._keep_every = keep, keep_every

    def scan(self) -> dict[int, RemoteStep]:
        """All steps of which something is there, rising."""
        found: dict[int, RemoteStep] = {}
        for name, size in sorted(self.store.listing().items()):
            if (known := object_of(name)) is not None:
                step = found.setdefault(known.step, RemoteStep(known.step))
                step.objects[known.file + (PACKED if known.packed else "")] = size
        return found

    def steps(self) -> list[int]:
        return [number for number, step in self.scan().items() if step.exists]

    def look(self, step: int) -> RemoteStep:
        """Raises NoCheckpointError."""
        place = step_folder(step)
        names = {
            name: size for name, size in self.store.listing(place).items() if object_of(name) is not None
        }
        found = RemoteStep(step, {name.rpartition("/")[2]: size for name, size in names.items()})
        if not found.exists:
            raise NoCheckpointError(f"no step {step} at {self.store.url}")
        return found

    def manifest_bytes(self, step: RemoteStep) -> bytes:
        size = step.objects[FILE_NAME]
        if size > MANIFEST_BYTES_MAX:
            raise DamagedError(f"{self.where(step.step, FILE_NAME)}: {size} bytes are no manifest")
        return self.store.read(f"{step_folder(step.step)}/{FILE_NAME}", 0, max(size, 1))

    def manifest(self, step: RemoteStep) -> Manifest:
        """Raises DamagedError for what is none, or that of another step."""
        what = self.where(step.step, FILE_NAME)
        made = manifests.decode(self.manifest_bytes(step), what=what)
        if made.step != step.step:
            raise DamagedError(f"{what} is that of step {made.step}")
        return made

    def where(self, step: int, file: str) -> str:
        return f"{self.store.url.rstrip('/')}/{step_folder(step)}/{file}"

    def seal(self, step: int) -> bytes | None:
        """The manifest's bytes, None: the step is not there."""
        try:
            return self.manifest_bytes(self.look(step))
        except (NoCheckpointError, FileNotFoundError):
            return None

    def make_way(self, step: int) -> None:
        """A step of this number with other content goes, since this run has come by again on another way.

        Raises CheckpointError where it is the only one: then it stays.
        """
        if not any(other != step for other in self.steps()):
            raise CheckpointError(
                f"{self.where(step, FILE_NAME)} is another step of this number, and the only one "
                f"there: save under "
                "another number, or remove it"
            )
        self.remove(self.look(step))

    def publish(self, step: int, data: bytes) -> None:
        """The manifest, last of all; the step exists. Raises CheckpointError where another one does."""
        name = f"{step_folder(step)}/{FILE_NAME}"
        if self.store.put_if(name, data, None) is not None:
            return
        if self.store.read(name) != data:  # else it is ours, and an answer was lost
            raise CheckpointError(
                f"{self.where(step, FILE_NAME)} was put by somebody else meanwhile: give each run its own URL"
            )

    def retire(self, newest: int) -> list[int]:
        """What retention does not keep goes; `newest` is complete and stays in any case."""
        present = self.scan()
        existing = [number for number, step in present.items() if step.exists]
        stay = keepers(existing, self._keep, self._keep_every) | {newest}
        gone = [number for number in existing if number not in stay]
        for number in gone:
            self.remove(present[number])
        return gone

    def remove(self, step: RemoteStep) -> None:
        names = step.names()
        if step.exists:
            self.store.delete(names[:1])
        self.store.delete(names[step.exists :])

    def sweep(self) -> list[int]:
        """Removes steps that have no manifest, and parts that nobody will finish; while nothing is under
        way."""
        gone = [step for step in self.scan().values() if not step.exists]
        for step in gone:
            self.remove(step)
        for name, mark in self.store.unfinished():
            if object_of(name) is not None:
                self.store.abort(name, mark)
        return [step.step for step in gone]
