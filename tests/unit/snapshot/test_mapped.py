"""Buffers of trainers as coding sees them: mapped once, while their trainers have them."""

from __future__ import annotations

import os

from pccl_py.snapshot import limits, memory
from pccl_py.snapshot.holding import file_key
from pccl_py.snapshot.protection import Memory
from pccl_py.snapshot.share import Mapped


def test_a_buffer_that_comes_again_is_not_mapped_again() -> None:
    mapped = Mapped()
    fds = [memory.make("test", limits.BUFFER_UNIT) for _ in range(3)]
    here = {file_key(fd) for fd in fds[:2]}
    views = [mapped.view(Memory(os.dup(fd), limits.BUFFER_UNIT, b"")) for fd in fds]
    mapped.keep_only([views[0]], here)
    assert mapped.view(Memory(os.dup(fds[0]), limits.BUFFER_UNIT, b"")) is views[0]
    assert mapped.view(Memory(os.dup(fds[1]), limits.BUFFER_UNIT, b"")) is views[1]  # it is not coded now
    assert mapped.view(Memory(os.dup(fds[2]), limits.BUFFER_UNIT, b"")) is not views[2]  # nobody has it
    mapped.keep_only([views[2]], set())
    assert mapped.view(Memory(os.dup(fds[1]), limits.BUFFER_UNIT, b"")) is not views[1]
    for fd in fds:
        os.close(fd)
