"""Any store that fsspec reaches, by what all of them can: whole objects, written front to back."""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from typing import Any

import fsspec  # type: ignore[import-untyped]

from ..errors import UsageError
from .manifest import FILE_NAME

PART = ".part"
# A file there is seen while it is written, so it gets its name afterwards; elsewhere an object appears whole.
_RENAMED = ("file", "local", "sftp", "ssh", "smb", "ftp", "hdfs", "arrow_hdfs", "dbfs")


class FsspecStore:
    resumes = False
    parallel = 1
    part_bytes_min = 1
    parts_max = 1 << 31

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self.url = url
        defaults = {"skip_instance_cache": True, "use_listings_cache": False}
        try:
            self.fs, self.root = fsspec.core.url_to_fs(url, **(defaults | options))
        except (ValueError, ImportError, TypeError) as error:
            raise UsageError(f"remote {url!r}: {error}") from None
        self.root = self.root.rstrip("/")
        protocol = self.fs.protocol
        self._renames = (protocol if isinstance(protocol, str) else protocol[0]) in _RENAMED
        self._lock = threading.Lock()  # of put_if, between threads of this process

    def path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def listing(self, below: str = "") -> dict[str, int]:
        self.fs.invalidate_cache()
        place = self.path(below)
        try:
            found = self.fs.find(place, detail=True)
        except FileNotFoundError:
            return {}
        skip = len(self.root) + 1
        return {name[skip:]: int(info["size"] or 0) for name, info in found.items() if name != place}

    def read(self, name: str, begin: int = 0, end: int | None = None) -> bytes:
        return bytes(self.fs.cat_file(self.path(name), start=begin or None, end=end))

    def read_tagged(self, name: str) -> tuple[bytes, str] | None:
        try:
            data = self.read(name)
        except FileNotFoundError:
            return None
        return data, hashlib.sha256(data).hexdigest()

    def put(self, name: str, data: bytes) -> None:
        self._make_folder(name)
        path = self.path(name)
        if not self._renames:
            self.fs.pipe_file(path, data)
            return
        self.fs.pipe_file(path + PART, data)
        self.fs.mv(path + PART, path)

    def put_if(self, name: str, data: bytes, was: str | None) -> str | None:
        """By looking first: between two processes, a moment is left."""
        with self._lock:
            self.fs.invalidate_cache()
            found = self.read_tagged(name)
            if (found[1] if found else None) != was:
                return None
            self.put(name, data)
            return hashlib.sha256(data).hexdigest()

    def delete(self, names: list[str]) -> None:
        for name in names:
            with suppress(FileNotFoundError):
                self.fs.rm_file(self.path(name))
        if self._renames:
            for folder in {name.rpartition("/")[0] for name in names}:
                with suppress(OSError):  # not empty
                    self.fs.rmdir(self.path(folder))

    def send(self, name: str, mark: str = "") -> Written:
        self._make_folder(name)
        path = self.path(name)
        return Written(self.fs, path + PART if self._renames else path, path)

    def finished(self, name: str, tags: list[str]) -> bool:
        return False

    def unfinished(self) -> list[tuple[str, str]]:
        """What a killed process had under a temporary name, and folders without a file, as the manifest that
        they have not. Elsewhere nothing of it is seen."""
        if not self._renames:
            return []
        parts = [name for name in self.listing() if name.endswith(PART)]
        return [
            *((name.removesuffix(PART), PART) for name in parts),
            *((f"{folder}/{FILE_NAME}", "") for folder in self._empty_folders()),
        ]

    def _empty_folders(self) -> list[str]:
        if not self.fs.isdir(self.root):
            return []
        there = [one["name"] for one in self.fs.ls(self.root, detail=True) if one["type"] == "directory"]
        return [name.rstrip("/").rpartition("/")[2] for name in there if not self.fs.ls(name, detail=False)]

    def abort(self, name: str, mark: str) -> None:
        self.delete([name + mark])

    def _make_folder(self, name: str) -> None:
        """Each time: another rank may have removed it, empty as it was."""
        if self._renames:
            self.fs.makedirs(self.path(name.rpartition("/")[0]), exist_ok=True)


class Written:
    """Parts in their order, into one file that is opened for writing."""

    mark = ""

    def __init__(self, fs: Any, path: str, final: str) -> None:
        self._fs, self._path, self._final = fs, path, final
        self._file = fs.open(path, "wb")
        self._next = 1

    def part(self, number: int, data: bytes) -> str:
        if number != self._next:
            raise OSError(f"part {number} came where part {self._next} goes: begin anew")
        self._next = -1  # a write that fails leaves nobody knows how much of it
        self._file.write(data)
        self._next = number + 1
        return ""

    def finish(self, tags: list[str]) -> None:
        self._file.close()
        if self._path != self._final:
            self._fs.mv(self._path, self._final)

    def abandon(self) -> None:
        with suppress(Exception):
            self._file.discard()
        with suppress(Exception):
            if self._path != self._final:
                self._file.close()
                self._fs.rm_file(self._path)
