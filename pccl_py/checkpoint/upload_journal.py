"""What this rank has sent of a step, in a small file beside the steps: a killed upload goes on from there.

Lost or unreadable, it costs sending again, never a wrong object: the manifest's checksums judge what was
sent.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..values import bounded_json
from .files import PART, explained, opened, read_at, write_durably

BYTES_MAX = 64 << 20
_NAME = re.compile(r"\.upload-([0-9]{5})\.json(\.part)?")


@dataclass(slots=True)
class Progress:
    """Of one upload. `seal`: of the manifest, so that another step of this number is not mixed in."""

    url: str = ""
    step: int = -1
    seal: str = ""
    done: dict[str, int] = field(default_factory=dict)  # objects that are complete, and their sizes
    object: str = ""  # the one under way
    mark: str = ""  # of the store, to resume it
    tags: list[str] = field(default_factory=list)  # of its parts from 1, none missing
    raw: int = 0  # bytes of the shard file in them
    stored: int = 0  # bytes of the object in them
    frames: list[tuple[int, int, int]] = field(default_factory=list)  # of a compressed object, in them

    def begin(self, name: str, mark: str) -> None:
        self.object, self.mark = name, mark
        self.tags, self.raw, self.stored, self.frames = [], 0, 0, []

    def end(self, size: int) -> None:
        self.done[self.object] = size
        self.begin("", "")


class Journal:
    """The file of one rank. One thread. Rank 0 removes what a run of more ranks has left."""

    def __init__(self, root: Path, rank: int, world: int) -> None:
        self._root, self._name = root, f".upload-{rank:05d}.json"
        with suppress(OSError):
            (root / f"{self._name}{PART}").unlink(missing_ok=True)
            for name in os.listdir(root) if rank == 0 else []:
                if (match := _NAME.fullmatch(name)) is not None and int(match[1]) >= world:
                    (root / name).unlink(missing_ok=True)

    def read(self, url: str, step: int, seal: str) -> Progress:
        """What is known of this upload; of another one, or of none: that nothing was sent."""
        fresh = Progress(url, step, seal)
        try:
            with opened(self._root, self._name) as (file, size):
                data = read_at(file, 0, min(size, BYTES_MAX))
            found: Any = bounded_json.loads(data, what=self._name, bytes_max=BYTES_MAX, depth_max=4)
            kept = Progress(**found)
            kept.frames = [(int(a), int(b), int(c)) for a, b, c in kept.frames]
            kept.tags = [str(tag) for tag in kept.tags]
            numbers = (kept.raw, kept.stored, *kept.done.values())
            sound = all(isinstance(number, int) and number >= 0 for number in numbers)
        except (OSError, CheckpointError, ValueError, TypeError, AttributeError):
            return fresh
        return kept if sound and (kept.url, kept.step, kept.seal) == (url, step, seal) else fresh

    def write(self, progress: Progress) -> None:
        with explained(f"write {self._root / self._name}"):
            write_durably(self._root, self._name, json.dumps(asdict(progress)).encode())

    def forget(self) -> None:
        with suppress(OSError):
            (self._root / self._name).unlink(missing_ok=True)
