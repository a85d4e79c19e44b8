"""What a keeper holds of one trainer: which step counts, at any instant."""

from __future__ import annotations

import errno
import mmap
import os
import random
import zlib
from collections.abc import Iterator

import pytest

from pccl_py.errors import ProtocolError
from pccl_py.snapshot import limits, memory, messages, native
from pccl_py.snapshot.control import PAGE, Control, Record
from pccl_py.snapshot.generation import Lane
from pccl_py.snapshot.holding import Holding, Refusal
from pccl_py.snapshot.protection import Protection


@pytest.fixture
def holding() -> Iterator[Holding]:
    held = Holding("0")
    for slot in range(2):
        held.place(slot, memory.make("test", limits.BUFFER_UNIT), limits.BUFFER_UNIT)
    yield held
    held.close()


def complete(holding: Holding, slot: int, step: int, table: bytes = b"table") -> None:
    said = messages.Complete(slot, step, 100, zlib.crc32(table))
    holding.complete(said, memory.sealed_copy("test", table))


def test_the_newest_complete_step_counts_until_a_newer_one_is(holding: Holding) -> None:
    assert holding.newest is None and holding.control.committed() == -1
    for step in (3, 4, 9):
        slot = 1 - max(holding.control.committed(), 0) if holding.newest else 0
        before = holding.newest
        holding.begin(slot, step)
        assert holding.newest == before
        complete(holding, slot, step)
        assert holding.newest is not None and holding.newest.step == step
        assert holding.control.committed() == slot


def test_what_is_refused(holding: Holding) -> None:
    with pytest.raises(Refusal, match="not begun"):
        complete(holding, 0, 5)
    holding.begin(0, 5)
    complete(holding, 0, 5)
    with pytest.raises(Refusal, match="is the newest"):
        holding.begin(0, 6)
    for step in (4, 5):
        with pytest.raises(Refusal, match="step 5 of this trainer") as info:
            holding.begin(1, step)
        assert info.value.answer.code == "older"
        with pytest.raises(Refusal, match="step 5"):
            complete(holding, 1, step)
    holding.begin(1, 6)
    with pytest.raises(Refusal, match="not begun"):
        complete(holding, 1, 7)
    fd = memory.sealed_copy("test", b"table")
    with pytest.raises(Refusal, match="checksum"):
        holding.complete(messages.Complete(1, 6, 100, 1), fd)
    fd = memory.sealed_copy("test", b"table")
    with pytest.raises(Refusal, match="do not fit"):
        holding.complete(messages.Complete(1, 6, limits.BUFFER_UNIT + 1, zlib.crc32(b"table")), fd)
    with pytest.raises(Refusal, match="no sealed memory"):
        holding.complete(messages.Complete(1, 6, 100, 0), memory.make("test", 5))
    assert holding.newest is not None and holding.newest.step == 5
    with pytest.raises(Refusal, match="stays until"):
        holding.place(0, memory.make("test", limits.BUFFER_UNIT), limits.BUFFER_UNIT)
    complete(holding, 1, 6)
    assert holding.newest.step == 6


def test_a_step_taken_again_is_another_snapshot(holding: Holding) -> None:
    """Parities of the first do not belong to the second."""
    holding.begin(0, 5)
    complete(holding, 0, 5, b"first")
    protection = Protection({"0": holding}, set, 60.0)
    first, again = (Lane("0", 5, 100, 5, zlib.crc32(table)) for table in (b"first", b"again"))
    assert protection.intact((first,)) and not protection.intact((again,))
    holding.forget(4)
    holding.begin(0, 5)
    complete(holding, 0, 5, b"again")
    assert protection.intact((again,)) and not protection.intact((first,))
    assert protection.memory(first) is None


def test_a_successor_sees_what_is_complete_and_nothing_half(holding: Holding) -> None:
    holding.begin(0, 1)
    complete(holding, 0, 1)
    holding.begin(1, 2)
    told, fds = holding.described()
    assert told.committed == 0 and [slot.state for slot in told.slots] == ["complete", "empty"]
    assert len(fds) == 1 + 2 + 1
    with pytest.raises(Refusal):  # the one before is gone, and so is its writing
        complete(holding, 1, 2)


def test_forgetting(holding: Holding) -> None:
    for slot, step in ((0, 10), (1, 20)):
        holding.begin(slot, step)
        complete(holding, slot, step)
    holding.forget(25)
    assert holding.newest is not None and holding.newest.step == 20
    holding.forget(15)
    assert holding.newest.step == 10
    holding.begin(1, 11)
    complete(holding, 1, 11)
    holding.forget(0)
    assert holding.newest is None
    holding.begin(0, 1)
    complete(holding, 0, 1)
    assert holding.newest.step == 1


def test_a_larger_buffer_replaces_the_one_that_does_not_count(holding: Holding) -> None:
    holding.begin(0, 1)
    complete(holding, 0, 1)
    assert holding.lacking(limits.BUFFER_UNIT + 1) == 2 * 2 * limits.BUFFER_UNIT
    holding.place(1, memory.make("test", 2 * limits.BUFFER_UNIT), 2 * limits.BUFFER_UNIT)
    assert holding.memory_bytes == 3 * limits.BUFFER_UNIT
    assert holding.newest is not None and holding.newest.step == 1
    holding.begin(1, 2)
    complete(holding, 1, 2)
    assert holding.newest.step == 2


def test_another_keeper_takes_over_what_its_trainer_held() -> None:
    held = Holding("0")
    buffer = memory.make("test", limits.BUFFER_UNIT)
    slot = messages.Slot("complete", 0, 7, 100, 5, zlib.crc32(b"table"))
    held.adopt(slot, buffer, memory.sealed_copy("test", b"table"))
    assert held.newest is not None and held.newest.step == 7 and held.control.committed() == 0
    held.adopt(slot, memory.make("x", limits.BUFFER_UNIT), memory.sealed_copy("x", b"table"))  # has one
    held.close()
    strange = Holding("1")
    with pytest.raises(Refusal, match="no complete snapshot"):
        strange.adopt(slot, os.dup(0), memory.sealed_copy("test", b"table"))
    with pytest.raises(Refusal, match="checksum"):
        strange.adopt(slot, memory.make("test", limits.BUFFER_UNIT), memory.sealed_copy("test", b"other"))
    strange.close()


def test_the_control_page_says_complete_or_nothing() -> None:
    """Whatever a crash leaves of a record: the word names a whole one, or a damaged one is not believed."""
    control = Control.make()
    other = Control.open(os.dup(control.fd))
    rng = random.Random(3)
    assert other.committed() == -1 and other.record(0) is None
    for step in range(1, 50):
        slot = step % 2
        record = Record(step, rng.randrange(1 << 40), 7, rng.randrange(1 << 32), 1.5)
        control.write(slot, record)
        assert other.committed() == (-1 if step == 1 else 1 - slot)
        control.commit(slot)
        assert other.committed() == slot and other.record(slot) == record
    control._mapped[256 + rng.randrange(44)] ^= 0x10
    assert other.record(1) is None
    with pytest.raises(TypeError):
        other._mapped[0] = 0
    with pytest.raises(ValueError):
        Control.open(memory.make("test", PAGE))
    other.close()
    control.close()


@pytest.mark.parametrize("huge", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("error", [0, errno.EINVAL, errno.ENOMEM])
def test_memory_is_filled_by_pieces(
    monkeypatch: pytest.MonkeyPatch, error: int, threads: int, huge: bool
) -> None:
    """Before Linux 5.14, which says EINVAL, too, and where huge pages come on advice; or none is left."""
    count, piece = 6 * mmap.PAGESIZE, 4 * mmap.PAGESIZE
    monkeypatch.setattr(limits, "FILL_BYTES", piece)
    monkeypatch.setattr(memory, "_huge_pages_on_advice", lambda: huge)
    populate, asked = native.populate_pages, []

    def answer(part: memoryview, *, to_write: bool) -> int:
        asked.append(len(part))
        return error or populate(part, to_write=to_write)

    monkeypatch.setattr(native, "populate_pages", answer)
    fd = memory.make("test", count)
    try:
        if error == errno.ENOMEM:
            with pytest.raises(OSError) as info:
                memory.fill(fd, count, lambda: True, threads)
            assert info.value.errno == errno.ENOMEM
            return
        assert memory.fill(fd, count, lambda: True, threads) and sorted(asked) == [count - piece, piece]
        assert memory.held(fd) == count
        view = memory.mapped(fd, count, to_write=True)
        assert not view.any()
        view[-1] = 7
        assert memory.mapped(fd, count, to_write=False)[-1] == 7
    finally:
        os.close(fd)


def test_memory_that_nobody_can_shrink_and_tables_that_nobody_can_change() -> None:
    fd = memory.make("test", limits.BUFFER_UNIT)
    assert memory.size_of(fd) == limits.BUFFER_UNIT and memory.size_of(fd, constant=True) == -1
    for count in (0, 2 * limits.BUFFER_UNIT):
        with pytest.raises(OSError):
            os.ftruncate(fd, count)
    assert memory.fill(fd, limits.BUFFER_UNIT, lambda: True)
    assert os.fstat(fd).st_blocks * 512 == limits.BUFFER_UNIT
    assert not memory.fill(fd, limits.BUFFER_UNIT, lambda: False)
    os.close(fd)
    fd = memory.sealed_copy("test", b"abc")
    with pytest.raises(OSError):
        os.pwrite(fd, b"x", 0)
    assert memory.read_all(fd, 3) == b"abc" and memory.size_of(fd, constant=True) == 3
    os.close(fd)
    assert memory.size_of(0) == -1


def test_what_is_available_is_bounded_by_the_machine() -> None:
    with open("/proc/meminfo") as lines:
        total = int(next(lines).split()[1]) * 1024
    assert 0 <= memory.available() < total
    text = memory.exhausted(300 << 20, 100 << 20, "a state")
    assert "300 MiB" in text and "100 MiB" in text


def test_what_is_handed_over_is_complete() -> None:
    for slot in (
        messages.Slot("empty", 0, -1, 0, 5, zlib.crc32(b"table")),
        messages.Slot("complete", 0, -1, 0, 5, zlib.crc32(b"table")),
        messages.Slot("writing", 0, 3, 0, 5, zlib.crc32(b"table")),
    ):
        held = Holding("0")
        buffer, table = memory.make("test", limits.BUFFER_UNIT), memory.sealed_copy("test", b"table")
        with pytest.raises(Refusal, match="no complete snapshot"):
            held.adopt(slot, buffer, table)
        assert held.newest is None
        held.close()


@pytest.mark.parametrize("kind", [messages.Begin(0, 0), messages.Complete(0, 0, 0, 0)])
def test_no_snapshot_is_of_no_step(kind: messages.Message) -> None:
    data = messages.encode(kind).replace(b'"step":0', b'"step":-1')
    assert b'"step":-1' in data
    with pytest.raises(ProtocolError, match="step"):
        messages.decode(data)


def test_what_comes_back_takes_the_place_of_empty_buffers(holding: Holding) -> None:
    """They were made before anybody asked for what had been lost."""
    table = memory.sealed_copy("test", b"table")
    handed = messages.Slot("complete", limits.BUFFER_UNIT, 7, 100, 5, zlib.crc32(b"table"))
    holding.adopt(handed, memory.make("test", limits.BUFFER_UNIT), table)
    assert holding.newest is not None and holding.newest.step == 7
    assert holding.memory_bytes == limits.BUFFER_UNIT
