"""What the remote level asks of a store: objects by name below one URL, some of them sent in parts.

Names are relative to the URL, "/" between folder and object. Every call may raise any exception of the
store's own; `patience` decides what is tried again.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

from ..values.limits import STEP_MAX
from .manifest import FILE_NAME
from .manifest_body import is_shard_file

PACKED = ".zst"  # ends the name of a shard object that is compressed
_OBJECT = re.compile(r"step-([0-9]{12})/([^/]+)")


class ObjectName(NamedTuple):
    """An object of ours: the manifest of a step, or one of its shards."""

    step: int
    file: str  # as it is called in a local folder
    packed: bool


class Gone(Exception):
    """What was to be resumed is not there any more: begin anew."""


class Sending(Protocol):
    """One object on its way; it appears when `finish` returns, and not before."""

    mark: str  # resumes it in another process; "": that store cannot

    def part(self, number: int, data: bytes) -> str:
        """Sends part `number`, from 1; any thread, any order where `parallel` > 1. Returns what `finish`
        asks."""

    def finish(self, tags: list[str]) -> None: ...

    def abandon(self) -> None: ...


class RemoteStore(Protocol):
    url: str
    resumes: bool  # what one process began to send, another can go on with
    parallel: int  # parts and ranges that may be under way at once
    part_bytes_min: int  # of every part but the last
    parts_max: int

    def listing(self, below: str = "") -> dict[str, int]:
        """Names and sizes of all objects, or those in one folder. An empty place has none."""

    def read(self, name: str, begin: int = 0, end: int | None = None) -> bytes:
        """Bytes of an object. Raises FileNotFoundError where there is none."""

    def read_tagged(self, name: str) -> tuple[bytes, str] | None:
        """A small object with the tag of this version of it; None: there is none."""

    def put(self, name: str, data: bytes) -> None: ...

    def put_if(self, name: str, data: bytes, was: str | None) -> str | None:
        """Puts it where the object has the tag `was` (None: where there is none) and returns the new tag;
        None:
        it is not so, and nothing was put."""

    def delete(self, names: list[str]) -> None:
        """In this order; those that are not there are no error."""

    def send(self, name: str, mark: str = "") -> Sending:
        """Begins to send an object, or goes on with what `mark` names. Raises Gone."""

    def finished(self, name: str, tags: list[str]) -> bool:
        """Whether the object is there, and made of just these parts."""

    def unfinished(self) -> list[tuple[str, str]]:
        """Objects that somebody began to send here, as (name, mark); stores that cannot tell have none."""

    def abort(self, name: str, mark: str) -> None:
        """Forgets one of them."""


def step_folder(step: int) -> str:
    if not 0 <= step <= STEP_MAX:
        raise ValueError(f"step {step} is not from 0 to {STEP_MAX}")
    return f"step-{step:012d}"


def object_of(name: str) -> ObjectName | None:
    """What an object is by its name; None: none of ours, to be left alone."""
    match = _OBJECT.fullmatch(name)
    if match is None:
        return None
    file = match[2].removesuffix(PACKED)
    if match[2] == FILE_NAME or is_shard_file(file):
        return ObjectName(int(match[1]), file, file != match[2])
    return None
