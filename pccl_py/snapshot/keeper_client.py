"""The trainer's side of a keeper: attached under a name, two buffers that both map, and what is complete.

Requests may come from several threads, one at a time; `begin` never waits.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import weakref
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from ..errors import (
    NoSnapshotError,
    PcclError,
    ProtocolError,
    SnapshotError,
    SnapshotMemoryError,
    UsageError,
)
from . import bounded, channel, launch, limits, memory, messages
from .control import Control
from .messages import SLOTS, Message

M = TypeVar("M", bound=Message)


_all: weakref.WeakSet[Keeper] = weakref.WeakSet()


def _close_in_child() -> None:
    """A forked worker that outlives a trainer would make it look alive, and hold its memory."""
    for keeper in list(_all):
        keeper.close()


os.register_at_fork(after_in_child=_close_in_child)


class KeeperLost(SnapshotError):
    """The keeper is gone, and with it what it alone held. Attach again, with what this side holds."""


_REFUSALS = {"memory": SnapshotMemoryError, "gone": NoSnapshotError, "none": NoSnapshotError}
_Words = bytes  # since a field is called so, too


@dataclass(slots=True)
class Kept:
    """A complete snapshot: the buffer's descriptor and that of its table, both the attachment's."""

    slot: int
    step: int
    bytes: int
    fd: int
    table_fd: int
    table_bytes: int
    crc32: int

    def table(self) -> _Words:
        """Raises ProtocolError where it is not what was said."""
        data = memory.read_all(self.table_fd, self.table_bytes)
        if len(data) != self.table_bytes or zlib.crc32(data) != self.crc32:
            raise ProtocolError(f"the table of step {self.step} in memory is damaged")
        return data

    def duplicate(self) -> Kept:
        """With descriptors of its own."""
        return Kept(
            self.slot,
            self.step,
            self.bytes,
            os.dup(self.fd),
            os.dup(self.table_fd),
            self.table_bytes,
            self.crc32,
        )

    def close(self) -> None:
        channel.close_all([self.fd, self.table_fd])


class Keeper:
    """One attachment. `buffers`: descriptors, by slot, -1: none; `kept`: what is complete, newest first."""

    def __init__(self, connection: socket.socket, told: messages.Attached, fds: list[int]) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._attached = True
        _all.add(self)
        self.buffers = [-1] * SLOTS
        self.capacities = [slot.capacity for slot in told.slots]
        self._take(told, fds)

    @classmethod
    def attach(
        cls,
        run: str,
        trainer: str,
        *,
        keeper: str = "host",
        bytes: int = 0,
        parities: int = 0,
        orphan_s: float = 1800.0,
        timeout_s: float = 60.0,
        handed: Kept | None = None,
        start: bool = True,
    ) -> Self:
        """Starts the keeper of `run` where there is none; `start` False: raises NoSnapshotError then.

        bytes    that each of two buffers will need, if it is known, and `parities` beside them: raises
                 SnapshotMemoryError at once where they cannot be had
        handed   the newest snapshot that this trainer holds, for a keeper that has none

        Raises SnapshotError, VersionError, UsageError.
        """
        for name in (run, trainer, keeper):
            if not bounded.is_name(name):
                raise UsageError(f"{name!r} is no name: up to {limits.NAME_CHARS_MAX} printable characters")
        slot, fds = None, []
        if handed is not None:
            slot = messages.Slot("complete", 0, handed.step, handed.bytes, handed.table_bytes, handed.crc32)
            fds = [handed.fd, handed.table_fd]
        connection = launch.find(run, keeper, timeout_s)
        if connection is None and not start:
            raise NoSnapshotError(
                f"there is no keeper {keeper!r} of run {run!r} on this host: it never was, was freed, or was "
                "killed with what it held. Load the newest checkpoint"
            )
        connection = connection or launch.find_or_start(run, keeper, orphan_s, timeout_s)
        try:
            asked = messages.Attach(trainer, bytes, parities, orphan_s, slot)
            told, given = _request(connection, asked, messages.Attached, fds)
        except BaseException:
            connection.close()
            raise
        return cls(connection, told, given)

    def _take(self, told: messages.Attached, fds: list[int]) -> None:
        complete = [slot for slot in told.slots if slot.state == "complete"]
        have = [number for number, slot in enumerate(told.slots) if slot.capacity]
        if len(told.slots) != SLOTS or len(fds) != 1 + len(have) + len(complete):
            channel.close_all(fds)
            raise ProtocolError("the keeper did not hand over what it told of")
        control, *rest = fds
        try:
            self.control = Control.open(control)
        except ValueError as error:
            channel.close_all(fds)
            raise ProtocolError(f"the keeper's control page: {error}") from None
        for number in have:
            self.buffers[number] = rest.pop(0)
            if memory.size_of(self.buffers[number]) != told.slots[number].capacity:
                raise ProtocolError("the keeper's buffer has another size, or one that may change")
        found = []
        for number, slot in enumerate(told.slots):
            if slot.state == "complete":
                kept = Kept(
                    number,
                    slot.step,
                    slot.bytes,
                    self.buffers[number],
                    rest.pop(0),
                    slot.table_bytes,
                    slot.crc32,
                )
                if slot.bytes > slot.capacity or memory.size_of(kept.table_fd) != slot.table_bytes:
                    raise ProtocolError("the keeper's snapshot is larger than its memory")
                found.append(kept)
        self.kept = sorted(found, key=lambda kept: -kept.step)

    @property
    def alive(self) -> bool:
        """False once the keeper has closed the connection, or is gone."""
        if not self._lock.acquire(blocking=False):
            return True  # somebody talks with it, and will hear
        try:
            readable, _, _ = select.select([self._connection], [], [], 0)
            return not readable or self._connection.recv(1, socket.MSG_PEEK) != b""
        except (OSError, ValueError):
            return False
        finally:
            self._lock.release()

    @property
    def free_slot(self) -> int:
        """The one that is not the newest snapshot's."""
        committed = self.control.committed()
        return 0 if committed < 0 else 1 - committed

    def reserve(self, slot: int, count: int) -> int:
        """The descriptor of a buffer of at least so many bytes, populated; this object's."""
        self._drop_kept(slot)
        if self.buffers[slot] >= 0:  # first: its memory lives as long as either side has it
            os.close(self.buffers[slot])
        self.buffers[slot], self.capacities[slot] = -1, 0
        answer, fds = self._ask(messages.Reserve(slot, count), messages.Reserved)
        if len(fds) != 1 or answer.slot != slot or not memory.size_of(fds[0]) == answer.capacity >= count:
            channel.close_all(fds)
            raise ProtocolError("the keeper's buffer is not what was asked for")
        self.buffers[slot], self.capacities[slot] = fds[0], answer.capacity
        return fds[0]

    def begin(self, slot: int, step: int) -> None:
        """The slot will be written now. Without an answer: what is wrong is told by complete()."""
        self._drop_kept(slot)
        try:
            channel.send(self._connection, messages.Begin(slot, step))
        except OSError:
            pass  # complete() will find out, and the bytes are safe here

    def complete(self, slot: int, step: int, count: int, table: bytes) -> Kept:
        """What was written to the slot is the newest snapshot now. Raises KeeperLost, SnapshotError."""
        fd = memory.sealed_copy("pccl-table", table)
        kept = Kept(slot, step, count, self.buffers[slot], fd, len(table), zlib.crc32(table))
        try:
            self._ask(messages.Complete(slot, step, count, kept.crc32), messages.Completed, [fd])
        except KeeperLost:
            self.kept.insert(0, kept)  # whole, and to be handed to another keeper
            raise
        except BaseException:
            os.close(fd)
            raise
        self.kept.insert(0, kept)
        return kept

    def forget(self, after: int, *, again: bool = False) -> None:
        """Snapshots of steps beyond `after` are gone. `again`: here alone."""
        self._ask(messages.Forget(after, again), messages.Forgotten)
        for kept in list(self.kept):
            if kept.step > after:
                self._drop_kept(kept.slot)

    def protect(self, options: messages.Protect) -> None:
        """From now on coded with other keepers of the run. Raises SnapshotError where it is otherwise."""
        self._ask(options, messages.Protecting)

    def await_coded(self, step: int, seconds: float) -> messages.Coded:
        """After so many seconds, or once `step` is coded. 0: this trainer waits no longer."""
        return self._ask(messages.AwaitCoded(step, seconds), messages.Coded)[0]

    def fetch(self, seconds: float, count: int = 0) -> bool:
        """Whether the newest snapshot, lost elsewhere, is in the keeper: attach again. `count`: its bytes,
        about. Raises NoSnapshotError where there was none, or too much is lost."""
        return self._ask(messages.Fetch(seconds, count), messages.Fetched)[0].step >= 0

    def detach(self, *, free: bool) -> None:
        """Politely. `free`: nobody will want these snapshots."""
        try:
            self._ask(messages.Detach(free), messages.Detached)
        except (PcclError, OSError):
            pass  # it is gone, or will see that this side is
        self.close()

    def close(self) -> None:
        if not self._attached:
            return
        self._attached = False
        self._connection.close()
        for kept in self.kept:
            os.close(kept.table_fd)
        self.kept = []
        for fd in self.buffers:
            if fd >= 0:
                os.close(fd)
        self.buffers = [-1] * SLOTS
        self.control.close()

    def _drop_kept(self, slot: int) -> None:
        for kept in [one for one in self.kept if one.slot == slot]:
            self.kept.remove(kept)
            os.close(kept.table_fd)

    def _ask(self, message: Message, answer: type[M], fds: Sequence[int] = ()) -> tuple[M, list[int]]:
        with self._lock:
            return _request(self._connection, message, answer, fds)


def _request(
    connection: socket.socket, message: Message, wanted: type[M], fds: Sequence[int] = ()
) -> tuple[M, list[int]]:
    try:
        channel.send(connection, message, fds)
        answer, given = channel.receive(connection)
    except TimeoutError:
        connection.close()  # what comes late would be taken for the answer to the next request
        raise KeeperLost("the keeper does not answer") from None
    except OSError as error:
        raise KeeperLost(f"the keeper is gone: {error}") from None
    if isinstance(answer, wanted):
        return answer, given
    channel.close_all(given)
    if isinstance(answer, messages.Refused):
        raise _REFUSALS.get(answer.code, SnapshotError)(answer.text)
    raise ProtocolError(f"the keeper answered {type(answer).__name__}")
