"""What a keeper holds of one trainer: two buffers, the tables of what is complete in them, and the control
page that says which one counts. All rules about steps are here; no socket, no thread.

A slot is empty, or being written by the attached trainer, or complete. The committed slot is never written.
"""

from __future__ import annotations

import os
import time
import zlib
from dataclasses import dataclass

from . import limits, memory, messages
from .control import Control, Record
from .messages import SLOTS


class Refusal(Exception):
    """What a message asked for is not to be had."""

    def __init__(self, code: str, text: str, needed: int = 0, available: int = 0) -> None:
        super().__init__(text)
        self.answer = messages.Refused(code, text[: limits.TEXT_CHARS_MAX], needed, available)


FileKey = tuple[int, int]


def file_key(fd: int) -> FileKey:
    """The same for all descriptors of one memory."""
    facts = os.fstat(fd)
    return facts.st_dev, facts.st_ino


@dataclass(slots=True)
class _Buffer:
    """`fd` -1: no memory. `table` -1: nothing complete."""

    fd: int = -1
    capacity: int = 0
    table: int = -1
    writing: int = -1  # the step
    data_bytes: int = 0

    def drop_table(self) -> None:
        if self.table >= 0:
            os.close(self.table)
        self.table = -1

    def close(self) -> None:
        self.drop_table()
        if self.fd >= 0:
            os.close(self.fd)
        self.fd, self.capacity, self.writing = -1, 0, -1


class Holding:
    """Of one trainer. `gone_since`: time.monotonic() when it was lost; None: it is attached."""

    def __init__(self, trainer: str) -> None:
        self.trainer = trainer
        self.control = Control.make()
        self.gone_since: float | None = None
        self.orphan_s = 0.0
        self._buffers = [_Buffer() for _ in range(SLOTS)]

    @property
    def memory_bytes(self) -> int:
        return sum(buffer.capacity for buffer in self._buffers)

    @property
    def files(self) -> set[FileKey]:
        """Of its buffers."""
        return {file_key(buffer.fd) for buffer in self._buffers if buffer.fd >= 0}

    @property
    def capacity(self) -> int:
        """Of the larger buffer."""
        return max(buffer.capacity for buffer in self._buffers)

    @property
    def newest(self) -> Record | None:
        slot = self.control.committed()
        return None if slot < 0 else self.control.record(slot)

    def lacking(self, count: int) -> int:
        """Bytes to be made until both buffers hold so many."""
        wanted = memory.whole_units(count)
        return sum(wanted for buffer in self._buffers if buffer.capacity < wanted)

    def described(self) -> tuple[messages.Attached, list[int]]:
        """For a trainer that comes, with the descriptors: what an earlier one left half is empty now."""
        slots: list[messages.Slot] = []
        buffers, tables = [], []
        for number, buffer in enumerate(self._buffers):
            buffer.writing = -1
            record = None if buffer.table < 0 else self.control.record(number)
            if buffer.fd >= 0:
                buffers.append(buffer.fd)
            if record is None:
                slots.append(messages.Slot("empty", buffer.capacity, -1, 0, 0, 0))
                continue
            tables.append(buffer.table)
            complete = (record.step, record.bytes, record.table_bytes, record.crc32)
            slots.append(messages.Slot("complete", buffer.capacity, *complete))
        told = messages.Attached(self.control.committed(), tuple(slots))
        return told, [self.control.fd, *buffers, *tables]

    def adopt(self, handed: messages.Slot, buffer: int, table: int) -> None:
        """A snapshot that its trainer kept when a keeper died, or that others brought back; buffers without
        one give way. Takes both descriptors. Raises Refusal."""
        if self.newest is not None:
            os.close(buffer)
            os.close(table)
            return  # this keeper has what it has
        for one in self._buffers:
            one.close()
        capacity = memory.size_of(buffer)
        self._buffers[0] = _Buffer(buffer, capacity, -1, handed.step)
        if capacity < 0 or capacity % limits.BUFFER_UNIT or handed.state != "complete" or handed.step < 0:
            self._buffers[0].close()
            os.close(table)
            raise Refusal("wrong", "what was handed over is no complete snapshot in a keeper's buffer")
        self.complete(messages.Complete(0, handed.step, handed.bytes, handed.crc32), table)

    def place(self, slot: int, fd: int, capacity: int) -> None:
        """Memory for a slot that is not committed; the caller's descriptor, from now on this one's."""
        if slot == self.control.committed():
            os.close(fd)
            raise Refusal("wrong", "the buffer of the newest snapshot stays until there is a newer one")
        self._empty(slot)
        self._buffers[slot].close()
        self._buffers[slot] = _Buffer(fd, capacity)

    def buffer(self, slot: int) -> tuple[int, int]:
        """Its descriptor and size; -1 and 0: it has none."""
        return self._buffers[slot].fd, self._buffers[slot].capacity

    def slot_of(self, step: int, crc32: int) -> int:
        """Where the snapshot of that step, with a table of this checksum, is complete; -1: nowhere. A trainer
        that went back may have taken the step again, and then it is another snapshot."""
        for slot in range(SLOTS):
            record = self._complete(slot)
            if record is not None and (record.step, record.crc32) == (step, crc32):
                return slot
        return -1

    def table(self, slot: int) -> bytes:
        """Of what is complete in the slot."""
        fd = self._buffers[slot].table
        return b"" if fd < 0 else memory.read_all(fd, memory.size_of(fd))

    def begin(self, slot: int, step: int) -> None:
        """From now on the slot holds nothing complete."""
        newest = self.newest
        if self._buffers[slot].fd < 0 or slot == self.control.committed():
            raise Refusal("wrong", f"slot {slot} is not to be written: it has no memory, or is the newest")
        self._empty(slot)
        if newest is not None and step <= newest.step:
            raise Refusal("older", older(step, newest.step))
        self._buffers[slot].writing = step

    def complete(self, said: messages.Complete, table: int) -> None:
        """Takes the table's descriptor. One store makes the snapshot the newest. Raises Refusal."""
        try:
            self._check(said, table)
        except Refusal:
            os.close(table)
            raise
        buffer = self._buffers[said.slot]
        buffer.drop_table()
        buffer.table, buffer.writing, buffer.data_bytes = table, -1, said.bytes
        size = memory.size_of(table)
        self.control.write(said.slot, Record(said.step, said.bytes, size, said.crc32, time.time()))
        self.control.commit(said.slot)

    def _check(self, said: messages.Complete, table: int) -> None:
        buffer, newest = self._buffers[said.slot], self.newest
        if newest is not None and said.step <= newest.step:
            raise Refusal("older", older(said.step, newest.step))
        if buffer.writing != said.step or said.slot == self.control.committed():
            raise Refusal("wrong", f"step {said.step} was not begun in slot {said.slot}")
        if said.bytes > buffer.capacity:
            raise Refusal("wrong", f"{said.bytes} bytes do not fit into a buffer of {buffer.capacity}")
        size = memory.size_of(table, constant=True)
        if not 0 < size <= limits.TABLE_BYTES_MAX:
            raise Refusal("wrong", "the table is no sealed memory, or too large")
        if zlib.crc32(memory.read_all(table, size)) != said.crc32:
            raise Refusal("wrong", "the table's checksum differs")

    def forget(self, after: int) -> None:
        """Snapshots of later steps are gone; an older one that is still whole is the newest then."""
        records = {slot: self._complete(slot) for slot in range(SLOTS)}
        kept = {slot: one.step for slot, one in records.items() if one is not None and one.step <= after}
        self.control.commit(max(kept, key=lambda slot: kept[slot], default=-1))
        for slot in range(SLOTS):
            if slot not in kept and self._buffers[slot].writing < 0:
                self._empty(slot)

    def _complete(self, slot: int) -> Record | None:
        return None if self._buffers[slot].table < 0 else self.control.record(slot)

    def _empty(self, slot: int) -> None:
        self._buffers[slot].drop_table()
        self._buffers[slot].writing = -1
        self.control.clear(slot)

    def close(self) -> None:
        for buffer in self._buffers:
            buffer.close()
        self.control.close()


def older(step: int, newest: int) -> str:
    return (
        f"the keeper has step {newest} of this trainer, step {step} is not newer: restore() it, or give up "
        f"what is newer with forget({step - 1}), or name another run"
    )
