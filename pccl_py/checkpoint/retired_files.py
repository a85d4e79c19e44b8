"""Files of retired steps: of each rank one stays to be written over, and everything else goes."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from .manifest_body import is_shard_file


class RetiredFiles:
    """Of the rank that calls its shard file `name`; `own`: those of all ranks of its folder. `leads`: this
    rank removes folders, never one that is in use. Under its owner's lock."""

    def __init__(self, name: str, own: Collection[str], leads: bool) -> None:
        self._name, self._own, self._leads = name, own, leads
        self._spares: list[Path] = []
        self._emptying: set[Path] = set()  # folders of retired steps
        self._under_way: dict[Path, Path] = {}  # folders being written: from where each takes a spare file

    def take(self, path: Path) -> str:
        """A file for the step that is written into `path` from now on; "": there is none."""
        spare = self._spares.pop() if self._spares else None
        self._under_way[path] = path if spare is None else spare.parent
        return "" if spare is None else str(spare)

    def keep_out(self, path: Path) -> None:
        """Somebody else fills this folder from now on."""
        self._spares = [spare for spare in self._spares if spare.parent != path]
        self._under_way[path] = path
        self._emptying.discard(path)

    def written(self, path: Path) -> None:
        """Nobody writes into it any more."""
        self._under_way.pop(path, None)

    def in_use(self) -> set[Path]:
        """Folders that files are written to or taken from."""
        kept = {spare.parent for spare in self._spares}
        return kept | set(self._under_way) | set(self._under_way.values())

    def forget(self) -> None:
        """No file is written over; what is left of retired steps may go."""
        self._spares.clear()

    def add(self, paths: Iterable[Path]) -> None:
        """Folders of steps that have lost their manifest."""
        paths = list(paths)
        for path in paths:
            if not self._spares and _alone(path / self._name):
                self._spares.append(path / self._name)
        for path in paths:
            self._emptying.add(path)
            if self._leads:
                self._remove_strangers(path)
            if self._spares and path == self._spares[0].parent:
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
