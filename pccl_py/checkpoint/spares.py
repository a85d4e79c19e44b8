"""Retired shard files of one rank that its next saves write over, and folders that are filled or emptied."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from .manifest_body import is_shard_file


class Spares:
    """Of one folder of steps, under its owner's lock. `name`: of this rank's shard files; `own`: of those of
    all ranks that write here; `leads`: this rank removes what belongs to nobody."""

    def __init__(self, name: str, own: Collection[str], leads: bool) -> None:
        self._name, self._own, self._leads = name, own, leads
        self._files: list[Path] = []
        self._emptying: set[Path] = set()  # folders of retired steps
        self._filling: dict[Path, Path] = {}  # folders being written: from where each takes a spare file

    def begin(self, path: Path) -> Path | None:
        """This folder is filled from now on; a file to be written over for it, where there is one."""
        spare = self._files.pop() if self._files else None
        self._filling[path] = path if spare is None else spare.parent
        return spare

    def fetch(self, path: Path) -> None:
        """This folder, which may have been retired, is filled by somebody else from now on."""
        self._files = [spare for spare in self._files if spare.parent != path]
        self._filling[path] = path
        self._emptying.discard(path)

    def end(self, path: Path) -> None:
        """It is full, or given up."""
        self._filling.pop(path, None)

    def forget(self) -> None:
        self._files.clear()

    def in_use(self) -> set[Path]:
        """Folders that files are written to or taken from."""
        kept = {spare.parent for spare in self._files}
        return kept | set(self._filling) | set(self._filling.values())

    def retired(self, paths: Sequence[Path]) -> None:
        """One file of this rank stays to be written over, everything else of these steps goes."""
        for path in paths:
            if not self._files and _alone(path / self._name):
                self._files.append(path / self._name)
        for path in paths:
            self._emptying.add(path)
            if self._leads:
                self._remove_strangers(path)
            if self._files and path == self._files[0].parent:
                continue
            (path / self._name).unlink(missing_ok=True)
            with suppress(OSError):  # not empty yet: another rank's file
                path.rmdir()
        self._remove_emptied()

    def _remove_strangers(self, path: Path) -> None:
        """Shards of a retired step that was saved by another number of ranks: nobody writes over them."""
        with suppress(OSError):
            for file in os.listdir(path):
                if is_shard_file(file) and file not in self._own:
                    (path / file).unlink(missing_ok=True)

    def _remove_emptied(self) -> None:
        """Folders of retired steps, once all ranks have taken their files. Never one that another rank fills:
        an empty folder may be the next step's."""
        if not self._leads:
            return
        for path in self._emptying - self.in_use():
            with suppress(OSError):  # not empty: a file to be written over
                path.rmdir()
            if not path.exists():
                self._emptying.discard(path)


def _alone(path: Path) -> bool:
    """A file under no second name: somebody may have linked a copy of a step."""
    try:
        return os.lstat(path).st_nlink == 1
    except OSError:
        return False
