"""Ranks without a process group hear of each other through a folder that all of them see.

    root/.ranks/hello-00001             who is here now: a word of this process, and those of all ranks it
    knows root/.ranks/<session>/<key>.<rank>  what was given; written aside and renamed, so that it is there
    as a whole

A session is all ranks' words together. A rank that died and came again has another word: its old hello does
not name the others' new words, so nobody takes it for an answer.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import DamagedError
from ..state.boxed import World
from ..values import bounded_json
from .coordination import PAUSE_MOST_S, Board, Missing, _late
from .files import explained

FOLDER = ".ranks"
HELLO_BYTES_MAX = 16 << 20  # a word of each rank


class FolderCoordination(Board):
    """Returns from its constructor when all ranks have come; Missing names those that have not."""

    def __init__(self, root: Path, world: World, timeout_s: float) -> None:
        super().__init__(world)
        self._root = root / FOLDER
        with explained(f"use {self._root} to hear of other ranks"):
            self._root.mkdir(parents=True, exist_ok=True)
        words = self._meet(secrets.token_hex(8), timeout_s)
        session = hashlib.sha256(",".join(words).encode()).hexdigest()[:24]
        self._folder = self._root / session
        with explained(f"use {self._folder} to hear of other ranks"):
            self._folder.mkdir(exist_ok=True)
        self.exchange("meet/here", b"", timeout_s)
        if world.rank == 0:
            self._remove_old()

    def _meet(self, own: str, timeout_s: float) -> list[str]:
        """The words of all ranks, once every rank has said the same ones."""
        until = time.monotonic() + timeout_s
        size = self.world.size
        while True:
            hellos = [self._hello(rank) for rank in range(size)]
            known = [own if rank == self.world.rank else hellos[rank][0] for rank in range(size)]
            if hellos[self.world.rank] != (own, known):
                self._say(own, known)
                continue
            if all(word and said == known for word, said in hellos):
                return known
            if time.monotonic() > until:
                missing = [r for r, (_, said) in enumerate(hellos) if said != known]
                raise Missing(_late("meet", missing, size, timeout_s), missing)
            time.sleep(PAUSE_MOST_S / 5)

    def _hello(self, rank: int) -> tuple[str, list[str]]:
        try:
            data = (self._root / f"hello-{rank:05d}").read_bytes()
            said: Any = bounded_json.loads(data, what="hello", bytes_max=HELLO_BYTES_MAX, depth_max=2)
            word, known = said
            return str(word), list(known)
        except (OSError, DamagedError, ValueError, TypeError):
            return "", []

    def _say(self, own: str, known: list[str]) -> None:
        data = json.dumps([own, known]).encode()
        with explained(f"write into {self._root}"):
            _place(self._root, f"hello-{self.world.rank:05d}", data, own)

    def _remove_old(self) -> None:
        for path in self._sessions():
            if path != self._folder:
                shutil.rmtree(path, ignore_errors=True)

    def _sessions(self) -> Iterator[Path]:
        with suppress(OSError):
            yield from (path for path in self._root.iterdir() if path.is_dir() and not path.is_symlink())

    def _pin(self, name: str, words: bytes) -> None:
        with explained(f"write into {self._folder}"):
            _place(self._folder, _file(name), words, str(self.world.rank))

    def _there(self, name: str) -> bool:
        return (self._folder / _file(name)).exists()

    def _read(self, name: str) -> bytes:
        with explained(f"read {self._folder}"):
            return (self._folder / _file(name)).read_bytes()

    def _take_away(self, name: str) -> None:
        (self._folder / _file(name)).unlink(missing_ok=True)


def _file(name: str) -> str:
    return name.replace("/", ".")


def _place(folder: Path, name: str, data: bytes, word: str) -> None:
    draft = folder / f".{name}.{word}"
    draft.write_bytes(data)
    os.rename(draft, folder / name)
