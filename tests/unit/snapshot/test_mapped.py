"""Buffers of trainers as coding sees them: mapped once, while their trainers have them."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pccl_py.snapshot import limits, memory, messages
from pccl_py.snapshot.holding import Holding, file_key
from pccl_py.snapshot.protection import Memory, Protection
from pccl_py.snapshot.server import Server
from pccl_py.snapshot.share import Mapped


def mappings(name: str) -> int:
    return sum(f"memfd:{name}" in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_a_buffer_that_is_given_up_is_not_mapped_beside_what_replaces_it() -> None:
    """Until something was coded again, a keeper had three buffers of a state that grew."""
    server = object.__new__(Server)
    mapped = Mapped()
    member: Any = SimpleNamespace(unmap=mapped.forget)
    server._protection = Protection({}, set, 60.0, member=member)
    seen: list[int] = []
    populating: Any = SimpleNamespace(
        expect=lambda *_: seen.append(mappings("pccl-grows")), start=lambda *_: None
    )
    server._populating = populating
    holding = Holding("t")
    fd = memory.make("pccl-grows", limits.BUFFER_UNIT)
    mapped.view(Memory(os.dup(fd), limits.BUFFER_UNIT, b""))
    holding.place(0, fd, limits.BUFFER_UNIT)
    assert mappings("pccl-grows") == 1
    connection: Any = SimpleNamespace(filling=set())
    server._reserve(connection, holding, messages.Reserve(0, 3 * limits.BUFFER_UNIT))
    assert seen == [0], "its memory is free before that of the larger one is looked for"


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
